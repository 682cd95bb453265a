"""The vLLM engine on a stand-in module of the same names and arguments (tests/vllm_stand_in.py)."""

import json
import sys

import pytest
import vllm_stand_in
from conftest import refused

from rac.engines import Request, Sampling
from rac.engines.vllm import VllmEngine
from rac.errors import UserError


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", vllm_stand_in)


def responses(folder):
    rows = map(json.loads, (folder / "eval" / "embedded.jsonl").read_text().splitlines()[1:])
    timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return sorted(timeless, key=lambda row: row["index"])


def test_greedy_answers_equal_those_of_transformers(vllm, rac, tmp_path):
    flags = ("--model", "embedded", "--limit", 2, "--temperature", 0, "--max-new-tokens", 200)
    flags += ("--budgets", "178,100", "--quiet")
    for engine, out in (("vllm", tmp_path / "v"), ("transformers", tmp_path / "t")):
        code, lines, err = rac("eval", "--engine", engine, "--out", out, *flags)
        assert (code, err) == (0, [])
        assert lines[0] == "accuracy       1.0000 ± 0.0000 (2 problems)"
    assert responses(tmp_path / "v") == responses(tmp_path / "t")
    found, ours = (
        json.loads((tmp_path / name / "eval" / "embedded.json").read_text()) for name in "vt"
    )
    assert (found["engine"], found["device"], found["batch_size"]) == ("vllm", "cpu", None)
    same = ("prompts", "problems", "dtype")
    assert [found["settings"][n] for n in same] == [ours["settings"][n] for n in same]


def test_arguments_are_passed_and_outputs_come_as_they_finish(vllm):
    engine = VllmEngine("embedded", engine_args={"max_model_len": 150, "max_num_seqs": 8})
    assert (engine.context, engine.batch_size, engine.thinks) == (150, 8, True)
    with pytest.raises(UserError, match="problem 1 has .* and the model's context 150"):
        engine.settings(["a" * 150])
    requests = [Request(i, f"say {i}", i) for i in (4, 7, 9)]
    outputs = engine.complete(requests, Sampling(5, 0.0))
    first = next(outputs)
    assert (first.index, first.output_tokens, first.finish_reason) == (9, 5, "length")
    outputs.close()  # an interrupt: what is not finished is dropped
    assert sorted(engine.llm.llm_engine.aborted) == ["4", "7"]


def test_an_engine_that_dies_is_one_line(vllm, monkeypatch):
    engine = VllmEngine("embedded")

    def die(self):
        raise RuntimeError("EngineCore died\nwith a long story")

    monkeypatch.setattr(vllm_stand_in.LLMEngine, "step", die)
    with pytest.raises(UserError, match="^vLLM: EngineCore died$"):
        next(engine.complete([Request(0, "say 0")], Sampling(5)))


def test_what_is_refused(vllm, rac, monkeypatch):
    flags = {"model": "embedded", "engine": "vllm"}
    line = refused(rac, flags | {"engine-args": "tensor_parallel=2"}, "eval")
    assert "--engine vllm" in line and "unexpected keyword argument 'tensor_parallel'" in line
    monkeypatch.setitem(sys.modules, "vllm", None)  # not installed
    line = refused(rac, flags, "eval")
    assert line.endswith("pip install 'rac-prune[vllm]'")
