"""Figure 2 of a report: runs on disk, followed and drawn."""

import json
import shutil

import numpy as np
import torch
from report_runs import write_run
from test_reconstruction import errors_by_hand, rollouts_of

from rac.evaluation import responses
from rac.models import load_model, load_tokenizer
from rac.prompts import render
from rac.report import pairs, write_report


def make_runs(root, source_of):
    """Dense, and 0.5 prompt and rac with checkpoints whose weights are the dense ones and noise."""
    source = source_of("qwen2")
    questions = ["What is 1+1?", "Say it again, and at length.", "Why?"]
    runs = [write_run(root / "dense", "dense", "dense", 0.9, 1.0, str(source))]
    for index, name in enumerate(("prompt", "rac")):
        run = write_run(root / name, "0.5", name, 0.5 + 0.1 * index, 1.0, str(source))
        torch.manual_seed(index)
        model = load_model(source, "cpu")
        for parameter in model.parameters():
            parameter += 0.02 * (2 - index) * torch.randn_like(parameter)
        model.save_pretrained(run / "model")
        rows = [
            responses.Response(i, q, "2", "", "", True, True, "stop", 1, 1, 1.0)
            for i, q in enumerate(questions)
        ]
        lines = [{"settings": {}}, *(vars(row) for row in reversed(rows))]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run / "eval" / "embedded.jsonl").write_text(text)
        runs.append(run)
    return runs, source, questions


def test_figure2_end_to_end(tmp_path, source_of, monkeypatch):
    runs, source, questions = make_runs(tmp_path, source_of)
    monkeypatch.setattr(pairs, "MOST_ROLLOUT_TOKENS", 10)
    out = tmp_path / "report"
    write_report(runs, out)
    html = (out / "report.html").read_text()
    assert (out / "figure2_heatmap.png").read_bytes() and "along 3 problems" in html
    assert "rac 0.600, dense 0.900" in html
    tokenizer, dense = load_tokenizer(source), load_model(source, "cpu")
    prompts = [render(tokenizer, q) for q in questions]
    sequences = [p + r for p, r in zip(prompts, rollouts_of(dense, prompts, 10), strict=True)]
    kept = {path: np.load(path)["errors"] for path in (out / "reconstruction").rglob("*.npz")}
    assert len(kept) == 2
    for run in runs[1:]:
        pruned = load_model(run / "model", "cpu")
        expected = np.concatenate([errors_by_hand(dense, pruned, ids) for ids in sequences])
        assert any(np.allclose(e, expected, rtol=1e-3, atol=1e-5) for e in kept.values())

    def refuse(*arguments):
        raise AssertionError("a repeated report loads no model")

    monkeypatch.setattr(pairs, "load_model", refuse)
    write_report(runs, out)
    assert (out / "report.html").read_text() == html


def test_figure2_without_its_source_says_so(tmp_path, source_of):
    runs, _, _ = make_runs(tmp_path, source_of)
    for run in runs:
        for path in (run / "eval" / "embedded.json", run / "model" / "rac.json"):
            if path.is_file():
                values = json.loads(path.read_text())
                path.write_text(json.dumps(values | {"source_model": "./gone"}))
    write_report(runs, tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text()
    assert "It is left out: --model ./gone: no such folder" in html
    shutil.rmtree(runs[1] / "model")
    write_report(runs, tmp_path / "report")
    assert "no such pair" in (tmp_path / "report" / "report.html").read_text()
