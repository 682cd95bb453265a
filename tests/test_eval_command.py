"""`rac eval`: what it refuses before a model is loaded, and what it prints."""

import json
from dataclasses import replace

import pytest
from conftest import arguments, refused

from rac.engines.opening import parse_engine_args
from rac.errors import UserError
from rac.eval_command import lines
from rac.evaluation.metrics import BudgetResult, EvalResult

SERVER = {"engine": "openai", "base-url": "http://127.0.0.1:9/v1"}
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "task": ({"task": "math5000"}, "task 'math5000' is not one of embedded, jsonl"),
    "no data": ({"task": "jsonl"}, "task jsonl needs a file of problems"),
    "data": ({"task": "jsonl", "data": "/no/file.jsonl"}, "cannot read /no/file.jsonl"),
    "engine": ({"engine": "tgi"}, "--engine tgi: expected one of transformers, vllm, openai"),
    "no equals": ({"engine": "vllm", "engine-args": "tp"}, "--engine-args tp: expected key=value"),
    "engine args": ({"engine-args": "a=1"}, "--engine-args are for --engine vllm and"),
    "no address": ({"engine": "openai"}, "--engine openai needs --base-url"),
    "address": ({"base-url": "http://localhost/v1"}, "--base-url is for --engine openai"),
    "bad address": (SERVER | {"base-url": "localhost:1"}, "expected http://host:port/v1"),
    "nobody there": (SERVER, "no server answers at http://127.0.0.1:9/v1"),
    "described": (SERVER | {"describe": "./no/run"}, "--describe ./no/run: no such folder"),
    "described here": ({"describe": "embedded"}, "--describe is for --engine openai"),
    "budget": (
        {"budgets": "9000,4096", "max-new-tokens": "8k"},
        "--budgets 9000 is not in 1..8000, the most tokens that a response gets",
    ),
    "no budget": ({"budgets": "0"}, "--budgets 0: expected at least 1"),
    "budgets": ({"budgets": "8k,x"}, "--budgets x:"),
    "pass@k": ({"samples": 4, "pass-at": "1,5"}, "--pass-at 5 needs 1 to 4 of the responses"),
    "samples": ({"samples": 0}, "--samples must be at least 1"),
    "greedy": ({"samples": 2, "temperature": 0}, "--samples 2 at temperature 0"),
    "tokens": ({"max-new-tokens": "many"}, "--max-new-tokens many"),
    "model": ({"model": "/no/model"}, "--model /no/model: no such folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_flags_are_refused_before_a_model_is_loaded(case, rac, tmp_path, monkeypatch):
    monkeypatch.setattr("rac.models.load_model", lambda *a, **k: pytest.fail("loaded a model"))
    changes, message = REFUSED[case]
    flags = {"model": "embedded", "out": tmp_path / "out", "quiet": True} | changes
    assert message in refused(rac, flags, "eval")
    assert not (tmp_path / "out").exists()


def test_damaged_results_are_refused_before_a_model_is_loaded(rac, tmp_path, monkeypatch):
    monkeypatch.setattr("rac.models.load_model", lambda *a, **k: pytest.fail("loaded a model"))
    path = tmp_path / "eval" / "embedded.jsonl"
    path.parent.mkdir()
    path.write_text('{"settings": {}}\n{"index": 0\n')
    flags = {"model": "embedded", "out": tmp_path}
    assert refused(rac, flags, "eval").endswith(
        "line 2 is damaged; delete the file or choose another --out"
    )


def test_samples_and_budgets_from_the_command_line(rac, tmp_path):
    flags = {"model": "embedded", "limit": 2, "samples": 2, "out": tmp_path, "quiet": True}
    flags |= {"max-new-tokens": 200, "budgets": "150", "pass-at": 2, "seed": 3}
    code, out, err = rac(*arguments(flags, "eval"))
    assert (code, err) == (0, [])
    assert out[0].endswith("(2 problems, 2 samples)")
    assert any(line.startswith("at 150         accuracy 0.0000") for line in out)
    written = json.loads((tmp_path / "eval" / "embedded.json").read_text())
    assert written["pass_at"] == {"2": 1.0} and written["settings"]["budgets"] == [150]
    settings = (written["settings"][n] for n in ("temperature", "top_p", "seed", "samples"))
    assert tuple(settings) == (0.6, 0.95, 3, 2)  # two are the task's own
    rows = (tmp_path / "eval" / "embedded.jsonl").read_text().splitlines()[1:]
    keys = [(json.loads(row)["index"], json.loads(row)["sample"]) for row in rows]
    assert sorted(keys) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert rac(*arguments(flags, "eval"))[1] == out  # finished: nothing to do


def test_engine_args():
    given = ["tensor-parallel-size=2", "dtype=bfloat16", "enforce_eager=True", "seed=null"]
    given += ['chat_template_kwargs={"enable_thinking": true}', "x=a=b"]
    assert parse_engine_args(given) == {
        "tensor_parallel_size": 2,
        "dtype": "bfloat16",
        "enforce_eager": True,
        "seed": None,
        "chat_template_kwargs": {"enable_thinking": True},
        "x": "a=b",
    }
    with pytest.raises(UserError, match="a_b is given twice"):
        parse_engine_args(["a-b=1", "a_b=2"])


def test_printed_numbers():
    result = EvalResult(
        task="t", pattern="dense", calibration="dense", solver=None, model="m", source_model="m",
        sparsity=0.0, n=30, accuracy=0.5, stderr=0.04, minutes=2.0, output_tokens=900.4,
        output_tokens_median=800.0, output_tokens_p95=2000.0, tokens_per_second=1234.5,
        limit_share=0.1, unfinished_share=0.2, batch_size=8, device="cpu", settings={}, samples=4,
        pass_at={1: 0.5, 4: 0.75}, scores={"em": 0.25},
        budgets={4096: BudgetResult(0.25, 0.03, 700.0, 0.3, 0.3)},
    )  # fmt: skip
    assert list(lines(result)) == [
        "accuracy       0.5000 ± 0.0400 (30 problems, 4 samples)",
        "               pass@1 0.5000, pass@4 0.7500",
        "scores         em 0.2500",
        "minutes        2.00 (1,234 tokens/s)",
        "output tokens  mean 900, median 800, p95 2000; 10.0% hit the limit, "
        "20.0% without </think>",
        "at 4,096       accuracy 0.2500 ± 0.0300; tokens mean 700; 30.0% hit the limit",
    ]
    one = replace(result, samples=1, pass_at={1: 0.5}, scores={}, unfinished_share=None, budgets={})
    assert [line.split()[0] for line in lines(one)] == ["accuracy", "minutes", "output"]
