"""A transformers model as an engine: what it tells, and where budgets cut its text."""

import itertools
import json

import pytest
from conftest import build_model
from transformers import Qwen2ForCausalLM

from rac.assets.tokenizer import build_tokenizer
from rac.engines import Request, Sampling
from rac.engines.describe import (
    describe_checkpoint,
    described_folder,
    fingerprint,
    fingerprint_files,
)
from rac.engines.local import TransformersEngine
from rac.engines.text import cut_positions, decode
from rac.errors import UserError
from rac.evaluation import Conditions, Question, Task, evaluate


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(512)


@pytest.fixture
def engine(tokenizer):
    return TransformersEngine(build_model("qwen2"), tokenizer, batch_size=2)


def test_evaluate(tmp_path, engine):
    conditions = Conditions(max_new_tokens=12, temperature=1.0, budgets=(7,))
    result = evaluate(engine, "embedded", conditions, limit=5, out_dir=tmp_path)
    rows = (tmp_path / "eval" / "embedded.jsonl").read_text().splitlines()[1:]
    rows = [json.loads(row) for row in rows]
    tokens = [row["output_tokens"] for row in rows]
    assert result.n == 5 and len(tokens) == 5
    assert result.output_tokens == pytest.approx(sum(tokens) / 5) and max(tokens) <= 12
    unfinished = ["</think>" not in row["text"] for row in rows]
    assert result.accuracy == 0.0 and result.unfinished_share == sum(unfinished) / 5
    longer = [count > 7 for count in tokens]
    assert any(longer) and result.budgets[7].limit_share >= sum(longer) / 5
    assert ["7" in row["budgets"] for row in rows] == longer


def test_a_shorter_limit_gives_the_cut_text(engine):
    """What budgets stand on: a limit changes nothing of what comes before it."""
    requests = [Request(i, f"say {i}", 3) for i in range(4)]
    engine.batch_size = 4
    long = {c.index: c for c in engine.complete(requests, Sampling(30, 1.0), (11,))}
    short = {c.index: c for c in engine.complete(requests, Sampling(11, 1.0))}
    assert any(c.cuts for c in long.values())
    for index, completion in long.items():
        text = completion.text[: completion.cuts.get(11, len(completion.text))]
        assert text == short[index].text


@pytest.mark.parametrize("answered", [1, 4, 9])
def test_a_killed_evaluation_continues_with_the_same_responses(tmp_path, engine, answered):
    """Whatever has been answered before, and in batches of another size."""
    conditions = Conditions(max_new_tokens=12, temperature=1.0, samples=2, seed=5)
    questions = tuple(Question(f"say {'more' * i}", "1") for i in range(5))

    def responses(folder):
        evaluate(engine, Task("jsonl", questions), conditions, out_dir=tmp_path / folder)
        rows = map(
            json.loads, (tmp_path / folder / "eval/jsonl.jsonl").read_text().splitlines()[1:]
        )
        return {(row["index"], row["sample"]): row["text"] for row in rows}

    straight, complete = responses("straight"), engine.complete

    def killed(*arguments):
        yield from itertools.islice(complete(*arguments), answered)
        raise KeyboardInterrupt

    engine.complete = killed
    with pytest.raises(KeyboardInterrupt):
        responses("killed")
    engine.complete, engine.batch_size = complete, 3
    assert responses("killed") == straight
    assert len(set(straight.values())) == 10  # no two are drawn alike


def test_a_request_seed_counts(engine):
    def draw(seed):
        return [c.text for c in engine.complete([Request(9, "say", seed)], Sampling(20, 1.0))]

    assert draw(1) == draw(1) != draw(2)


class Bytes:
    """A tokenizer whose tokens are the bytes of UTF-8."""

    chat_template = None

    def get_vocab(self):
        return {}

    def decode(self, ids, skip_special_tokens):
        return bytes(ids).decode("utf-8", errors="replace")


def test_a_character_that_the_budget_cuts_in_two_is_left_out():
    text = "aé€z"  # 1, 2, 3 and 1 bytes
    ids = list(text.encode())
    cuts = cut_positions(Bytes(), ids, text, range(1, 10))
    assert cuts == {1: 1, 2: 1, 3: 2, 4: 2, 5: 2, 6: 3}


def test_a_special_end_of_thinking_is_kept_and_counted(tokenizer):
    ids = tokenizer("ab</think>cd")["input_ids"]
    text = decode(tokenizer, ids)
    assert text == "ab</think>cd"
    cuts = cut_positions(tokenizer, ids, text, (2, 3, 4))
    assert [text[: cuts[b]] for b in (2, 3, 4)] == ["ab", "ab</think>", "ab</think>c"]


def test_a_pruned_checkpoint_is_described(tmp_path, tokenizer):
    folder, model = tmp_path / "run" / "model", build_model("qwen2")
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
    assert describe_checkpoint(str(folder)) == {**written, "model": str(folder)}
    assert TransformersEngine(loaded, tokenizer).describe() == describe_checkpoint(str(folder))
    assert described_folder(str(folder)) == described_folder(str(folder.parent)) == folder
    assert described_folder("org/name") is None
    assert fingerprint(loaded) == fingerprint(model)
    (folder / "rac.json").write_text("{}")
    task = Task("jsonl", (Question("q", "a"),))
    with pytest.raises(UserError, match="'pattern' is missing"):
        evaluate(TransformersEngine(loaded, tokenizer), task, out_dir=tmp_path)


def test_a_fingerprint_of_files_sees_one_weight(tmp_path):
    for name in ("a", "b", "c"):
        model = build_model("qwen2", hidden_size=256)
        if name == "c":
            model.model.layers[1].mlp.up_proj.weight[:] = 0
        model.save_pretrained(tmp_path / name)
    a, b, c = (fingerprint_files(tmp_path / name) for name in "abc")
    assert a == b != c


def test_prompts_that_cannot_be_asked(tmp_path, tokenizer):
    model = build_model("qwen2")
    long = Task("jsonl", (Question("a" * 300, "1"),))
    with pytest.raises(UserError, match="problem 1 has 30. tokens and the model's context 256"):
        evaluate(TransformersEngine(model, tokenizer), long, out_dir=tmp_path)
    bare = build_tokenizer(512)
    bare.chat_template = None
    short = Task("jsonl", (Question("a", "1"),))
    with pytest.raises(UserError, match="no chat template"):
        evaluate(TransformersEngine(model, bare), short, out_dir=tmp_path)
    assert not (tmp_path / "eval").exists()
