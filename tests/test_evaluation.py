"""Files and resumption of `rac eval`."""

import json
import time
from dataclasses import asdict

import pytest
import torch
from conftest import build_model
from transformers import Qwen2ForCausalLM

from rac.assets.tokenizer import build_tokenizer
from rac.engines import Trace
from rac.errors import UserError
from rac.evaluation import EvalResult, Question, Task, evaluate, runner
from rac.files import locked

SETTINGS = {"max_new_tokens": 40, "batch_size": 4}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(512)


@pytest.fixture
def model():
    return build_model("qwen2")


class Scripted:
    """Stands in for `generate`: answers by a function of the prompt text; counts what it was asked.

    Finishes in reverse order, and stops like a killed process after `dies_after` responses.
    """

    def __init__(self, tokenizer, respond, dies_after=None):
        self.tokenizer, self.respond, self.dies_after = tokenizer, respond, dies_after
        self.asked = []

    def __call__(self, model, prompts, sampling, *, batch_size):
        for count, index in enumerate(reversed(range(len(prompts)))):
            if count == self.dies_after:
                raise KeyboardInterrupt
            text = self.tokenizer.decode(prompts[index])
            self.asked.append(text)
            response, reason = self.respond(text)
            time.sleep(0.01)
            ids = self.tokenizer(response)["input_ids"]
            yield Trace(index, prompts[index], ids, reason)


def numbered(count):
    return Task("jsonl", tuple(Question(f"say {i}", str(i)) for i in range(count)))


def echo(text):
    """The right answer, but 3 is wrong and 4 never stops thinking."""
    number = text.partition("say ")[2].partition("<")[0]
    if number == "4":
        return "4 4 \\boxed{4}", "length"
    answer = "0" if number == "3" else number
    return f"so \\boxed{{9}}</think>\\boxed{{{answer}}}<|end|>", "stop"


def test_evaluate_grades_counts_and_writes(tmp_path, model, tokenizer, monkeypatch):
    monkeypatch.setattr(runner, "generate", Scripted(tokenizer, echo))
    ticks = []
    result = evaluate(
        model, tokenizer, numbered(8), out_dir=tmp_path, progress=ticks.append, **SETTINGS
    )
    assert result.n == 8 and result.accuracy == 6 / 8  # 3 is wrong, 4 is unfinished
    assert result.unfinished_share == result.limit_share == 1 / 8
    assert sum(ticks) == 8
    assert (result.pattern, result.calibration, result.sparsity) == ("dense", "dense", 0.0)
    written = json.loads((tmp_path / "eval" / "jsonl.json").read_text())
    assert EvalResult(**written) == result and asdict(result) == written
    header, *lines = map(json.loads, (tmp_path / "eval" / "jsonl.jsonl").read_text().splitlines())
    assert header["settings"] == result.settings
    assert [line["index"] for line in lines] == [7, 6, 5, 4, 3, 2, 1, 0]
    by_index = {line["index"]: line for line in lines}
    assert by_index[3]["predicted"] == "0" and not by_index[3]["correct"]
    assert by_index[4]["predicted"] is None and not by_index[4]["finished"]
    assert by_index[5]["text"] == "so \\boxed{9}</think>\\boxed{5}"
    assert by_index[5]["output_tokens"] == len(tokenizer(echo("say 5<")[0])["input_ids"])
    mean = sum(line["output_tokens"] for line in lines) / 8
    assert result.output_tokens == pytest.approx(mean)


def test_a_killed_evaluation_generates_nothing_twice(tmp_path, model, tokenizer, monkeypatch):
    first, second = Scripted(tokenizer, echo, dies_after=5), Scripted(tokenizer, echo)

    def run(generate, **changes):
        monkeypatch.setattr(runner, "generate", generate)
        return evaluate(model, tokenizer, numbered(8), out_dir=tmp_path, **{**SETTINGS, **changes})

    with pytest.raises(KeyboardInterrupt):
        run(first)
    path = tmp_path / "eval" / "jsonl.jsonl"
    with open(path, "ab") as file:  # killed while it wrote a sixth line
        file.write(b'{"index": 2, "prompt": "say')
    before = json.loads(path.read_text().splitlines()[5])["seconds"]
    result = run(second)
    assert len(first.asked) == 5 and len(second.asked) == 3
    assert not set(first.asked) & set(second.asked)
    assert result.n == 8 and result.accuracy == 6 / 8
    assert result.minutes * 60 > before + 0.03  # parts add up: 3 more responses of 10 ms
    assert len(path.read_text().splitlines()) == 9
    third = Scripted(tokenizer, echo)
    assert run(third) == result and third.asked == []
    assert run(third, batch_size=2).n == 8 and third.asked == []  # the batch size may change


def test_other_settings_are_refused_until_overwritten(tmp_path, model, tokenizer, monkeypatch):
    monkeypatch.setattr(runner, "generate", Scripted(tokenizer, echo))

    def run(task=None, **changes):
        task = task or numbered(3)
        return evaluate(model, tokenizer, task, out_dir=tmp_path, **{**SETTINGS, **changes})

    run()
    path = tmp_path / "eval" / "jsonl.jsonl"
    kept = path.read_bytes()
    for changes, key in (
        ({"max_new_tokens": 41}, "max_new_tokens 40 there, 41 now"),
        ({"temperature": 0.0}, "temperature"),
        ({"seed": 1}, "seed"),
        ({"task": numbered(4)}, "problems"),
        ({"raw_prompts": True}, "raw_prompts"),
    ):
        with pytest.raises(UserError, match="choose another --out, or pass --overwrite") as caught:
            run(**changes)
        assert key in str(caught.value)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 0.0
    with pytest.raises(UserError, match="weights"):
        run()
    assert path.read_bytes() == kept
    assert run(overwrite=True, seed=1).settings["seed"] == 1


def test_damaged_responses_and_a_second_evaluation_are_refused(
    tmp_path, model, tokenizer, monkeypatch
):
    monkeypatch.setattr(runner, "generate", Scripted(tokenizer, echo))

    def run(**changes):
        return evaluate(model, tokenizer, numbered(3), out_dir=tmp_path, **SETTINGS, **changes)

    run()
    path = tmp_path / "eval" / "jsonl.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"index": 0}', *lines[1:]]) + "\n")
    with pytest.raises(UserError, match="line 2 is damaged"):
        run()
    with locked(tmp_path / "eval"), pytest.raises(UserError, match="in use"):
        run(overwrite=True)


def test_evaluate_with_the_real_engine(tmp_path, model, tokenizer):
    result = evaluate(
        model, tokenizer, "embedded", limit=5, out_dir=tmp_path, max_new_tokens=12, batch_size=2
    )
    lines = (tmp_path / "eval" / "embedded.jsonl").read_text().splitlines()[1:]
    tokens = [json.loads(line)["output_tokens"] for line in lines]
    assert result.n == 5 and len(tokens) == 5
    assert result.output_tokens == pytest.approx(sum(tokens) / 5) and max(tokens) <= 12
    unfinished = ["</think>" not in json.loads(line)["text"] for line in lines]
    assert result.accuracy == 0.0 and result.unfinished_share == sum(unfinished) / 5


def test_a_pruned_checkpoint_is_described(tmp_path, model, tokenizer):
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    written = {
        "pattern": "2:4",
        "calibration": "rac",
        "solver": "sparsegpt",
        "source_model": "tiny",
        "sparsity": 0.5,
    }
    (folder / "rac.json").write_text(json.dumps({**written, "layers": []}))
    loaded = Qwen2ForCausalLM.from_pretrained(folder)
    assert runner.describe_checkpoint(loaded) == {**written, "model": str(folder)}
    assert runner.fingerprint(loaded) == runner.fingerprint(model)
    (folder / "rac.json").write_text("{}")
    with pytest.raises(UserError, match="'pattern' is missing"):
        evaluate(loaded, tokenizer, numbered(1), out_dir=tmp_path, **SETTINGS)


def test_prompts_that_cannot_be_asked(tmp_path, model, tokenizer):
    long = Task("jsonl", (Question("a" * 300, "1"),))
    with pytest.raises(UserError, match="problem 1 has 30. tokens and the model's context 256"):
        evaluate(model, tokenizer, long, out_dir=tmp_path, **SETTINGS)
    bare = build_tokenizer(512)
    bare.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        evaluate(model, bare, numbered(1), out_dir=tmp_path, **SETTINGS)
    assert not (tmp_path / "eval").exists()
