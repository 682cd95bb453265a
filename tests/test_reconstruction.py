"""Figure 2: token errors against a computation by hand, the cache, and the picture's grid."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import build_model
from report_runs import write_run

from rac.evaluation import responses
from rac.models import load_model, load_tokenizer
from rac.prompts import render
from rac.report import pairs, token_reconstruction, write_report
from rac.report.heatmap import _thin, aligned, color_bound
from rac.report.reconstruction import Comparison, cached, greedy_rollouts

PROMPTS = [[5, 9, 30], [7, 8, 20, 40, 41, 42, 43, 60], [11]]
ROLLOUTS = [[12, 13, 14, 15], [16], []]


def hidden_by_hand(model, ids):
    """The final norm's output for one sequence alone, float64 [T, D]."""
    kept = []
    norm = model.model.norm
    handle = norm.register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.no_grad():
        model(torch.tensor([ids]))
    handle.remove()
    return kept[0][0].double().numpy()


def errors_by_hand(dense, pruned, ids):
    difference = hidden_by_hand(dense, ids) - hidden_by_hand(pruned, ids)
    return np.sqrt((difference**2).sum(axis=1))


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_token_reconstruction_by_hand(architecture):
    dense = build_model(architecture, seed=0)
    pruned = build_model(architecture, seed=1)
    errors = token_reconstruction(dense, pruned, PROMPTS, ROLLOUTS)
    assert [len(row) for row in errors] == [7, 9, 1]
    for row, prompt, rollout in zip(errors, PROMPTS, ROLLOUTS, strict=True):
        np.testing.assert_allclose(row, errors_by_hand(dense, pruned, prompt + rollout), rtol=1e-4)
    same = token_reconstruction(dense, dense, PROMPTS, ROLLOUTS)
    assert all((row == 0).all() for row in same)


def test_greedy_rollouts_by_hand():
    model = build_model("qwen2")
    for prompt, rollout in zip(PROMPTS, greedy_rollouts(model, PROMPTS, 6), strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 6 and (len(ids) == len(prompt) or ids[-1] != 2):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert rollout == ids[len(prompt) :]


def comparison():
    prompt = [np.array([1, 2, 8, 8], np.float32), np.array([0, 3], np.float32)]
    rac = [np.array([1, 4, 2, 1], np.float32), np.array([0, 6], np.float32)]
    return Comparison(prompt, rac, [2, 1])


def test_ratios_and_means_by_hand():
    ratios = comparison().log2_ratios()
    np.testing.assert_allclose(ratios[0], [0, -1, 2, 3])
    np.testing.assert_allclose(ratios[1], [0, -1])  # both errors 0: equal
    assert comparison().mean_ratio("prompt") == pytest.approx(2 ** (-1 / 3))
    assert comparison().mean_ratio("decode") == pytest.approx(2 ** (4 / 3))


def test_rows_are_aligned_where_decoding_begins():
    grid, before = aligned(comparison())
    assert before == 2
    np.testing.assert_array_equal(grid, [[0, -1, 2, 3], [np.nan, 0, -1, np.nan]])
    assert color_bound(grid) == pytest.approx(np.percentile([0, 1, 2, 3, 0, 1], 98))


def test_thinning_keeps_the_boundary():
    grid = np.where(np.arange(2999) < 1001, -1.0, 1.0)[None].astype(np.float32)
    picture, left, right = _thin(grid, 1001)
    assert picture.shape[1] <= 1200 and left + right == 3 * picture.shape[1]
    assert left % 3 == 0 and 1001 <= left < 1004 and 1998 <= right < 2001
    np.testing.assert_array_equal(picture[0, : left // 3], -1)
    np.testing.assert_array_equal(picture[0, left // 3 :], 1)


def test_the_cache_is_used_until_its_inputs_change(tmp_path):
    path, calls = tmp_path / "errors.npz", []

    def compute():
        calls.append(1)
        return comparison()

    first = cached(path, {"a": 1}, compute)
    again = cached(path, {"a": 1}, compute)
    assert len(calls) == 1 and again.prompt_lengths == [2, 1]
    for ours, theirs in zip(first.prompt + first.rac, again.prompt + again.rac, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    cached(path, {"a": 2}, compute)
    assert len(calls) == 2
    path.write_bytes(path.read_bytes()[:50])
    cached(path, {"a": 2}, compute)
    assert len(calls) == 3


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
    sequences = [p + r for p, r in zip(prompts, greedy_rollouts(dense, prompts, 10), strict=True)]
    with np.load(out / "reconstruction.npz") as data:
        assert data["prompt_lengths"].tolist() == [len(p) for p in prompts]
        for name, run in (("prompt", runs[1]), ("rac", runs[2])):
            pruned = load_model(run / "model", "cpu")
            expected = np.concatenate([errors_by_hand(dense, pruned, ids) for ids in sequences])
            np.testing.assert_allclose(data[name], expected, rtol=1e-3, atol=1e-5)

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
