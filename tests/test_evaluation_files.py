"""Files that an evaluation finds: of other settings, damaged, in use, or older than it."""

import json

import pytest
from scripted_engine import ScriptedEngine, echo, numbered, read_lines

from rac.errors import UserError
from rac.evaluation import Conditions, EvalResult, evaluate, runner
from rac.files import locked

CONDITIONS = Conditions(max_new_tokens=40)


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"max_new_tokens": 41}, "max_new_tokens 40 there, 41 now"),
        ({"temperature": 0.0}, "temperature"),
        ({"seed": 1}, "seed"),
        ({"samples": 2}, "samples 1 there, 2 now"),
        ({"budgets": (8,)}, "budgets"),
    ],
)
def test_other_settings_are_refused_until_overwritten(changes, key, tmp_path):
    evaluate(ScriptedEngine(echo), numbered(3), CONDITIONS, out_dir=tmp_path)
    kept = (tmp_path / "eval" / "jsonl.jsonl").read_bytes()
    conditions = Conditions(**{"max_new_tokens": 40, **changes})
    with pytest.raises(UserError, match="choose another --out, or pass --overwrite") as caught:
        evaluate(ScriptedEngine(echo), numbered(3), conditions, out_dir=tmp_path)
    assert key in str(caught.value)
    assert (tmp_path / "eval" / "jsonl.jsonl").read_bytes() == kept
    result = evaluate(
        ScriptedEngine(echo), numbered(3), conditions, out_dir=tmp_path, overwrite=True
    )
    assert result.settings != json.loads(kept.splitlines()[0])["settings"]


def test_other_problems_and_weights_are_refused(tmp_path):
    evaluate(ScriptedEngine(echo), numbered(3), CONDITIONS, out_dir=tmp_path)
    with pytest.raises(UserError, match="problems"):
        evaluate(ScriptedEngine(echo), numbered(4), CONDITIONS, out_dir=tmp_path)
    other = ScriptedEngine(echo)
    other.weights = "v"
    with pytest.raises(UserError, match="weights 'w' there, 'v' now"):
        evaluate(other, numbered(3), CONDITIONS, out_dir=tmp_path)


@pytest.mark.parametrize("damage", ['{"index": 0}', "{", "[]", "same again"])
def test_damaged_responses_are_refused(damage, tmp_path):
    evaluate(ScriptedEngine(echo), numbered(3), CONDITIONS, out_dir=tmp_path)
    path = tmp_path / "eval" / "jsonl.jsonl"
    header, *lines = path.read_text().splitlines()
    middle = lines[0] if damage == "same again" else damage  # a response counted twice
    path.write_text("\n".join([header, lines[0], middle, *lines[1:]]) + "\n")
    kept = path.read_bytes()
    with pytest.raises(UserError, match="line 3 is damaged"):
        evaluate(ScriptedEngine(echo), numbered(3), CONDITIONS, out_dir=tmp_path)
    with pytest.raises(UserError, match="line 3 is damaged"):
        runner.check_responses(tmp_path, "jsonl")
    assert path.read_bytes() == kept
    path.write_text("\n".join([header, *lines]) + "\n")
    path.with_suffix(".jsonl.ungraded").write_text(f"{header}\n{damage}\n")
    with pytest.raises(UserError, match="ungraded line 2 is damaged"):
        runner.check_responses(tmp_path, "jsonl")


def test_a_second_evaluation_is_refused(tmp_path):
    with locked(tmp_path / "eval"), pytest.raises(UserError, match="in use"):
        evaluate(ScriptedEngine(echo), numbered(3), CONDITIONS, out_dir=tmp_path)


def test_files_of_before_there_were_engines_and_samples(tmp_path):
    """They are read, and their evaluation counts as done by transformers, one sample."""
    engine = ScriptedEngine(echo)
    engine.name = "transformers"
    now = evaluate(engine, numbered(3), CONDITIONS, out_dir=tmp_path)
    path = tmp_path / "eval" / "jsonl.jsonl"
    header, *lines = read_lines(tmp_path)
    for name in ("engine", "samples", "budgets"):
        del header["settings"][name]
    for line in lines:
        for name in ("sample", "scores", "note", "budgets"):
            del line[name]
    path.write_text("".join(json.dumps(row) + "\n" for row in [header, *lines]))
    assert evaluate(engine, numbered(3), CONDITIONS, out_dir=tmp_path) == now
    assert len(engine.asked) == 3
    summary = json.loads((tmp_path / "eval" / "jsonl.json").read_text())
    for name in ("engine", "samples", "pass_at", "scores", "budgets"):
        del summary[name]
    old = EvalResult(**summary)
    assert (old.engine, old.samples, old.budgets) == ("transformers", 1, {})
