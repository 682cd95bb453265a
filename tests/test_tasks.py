"""The evaluation's tasks: embedded problems and the user's own files."""

import itertools
import json

import pytest

from rac.assets.problems import generate_problems
from rac.errors import UserError
from rac.evaluation import Question, load_task


def test_embedded_task_is_the_heldout_split():
    task = load_task("embedded")
    assert len(task.questions) == 200
    assert len(load_task("embedded", limit=300).questions) == 300
    first = next(generate_problems("heldout", 0))
    assert task.questions[0] == Question(first.prompt, first.answer)
    calibration = {p.prompt for p in itertools.islice(generate_problems("calibration"), 2000)}
    assert calibration.isdisjoint(q.prompt for q in task.questions)


def test_jsonl_task(tmp_path):
    path = tmp_path / "own.jsonl"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    rows = [{"prompt": "1+1?", "answer": 2}, {"messages": messages, "answer": "4", "more": 1}]
    path.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)))
    task = load_task("jsonl", path, grader="math")
    assert task.questions == (Question("1+1?", "2"), Question(messages, "4"))
    assert task.grader == "math"
    assert load_task("jsonl", path, grader="exact").digest != task.digest
    assert len(load_task("jsonl", path, limit=1).questions) == 1
    assert load_task("jsonl", path, samples=16).settings.samples == 16


def test_own_rows_carry_what_their_grader_needs(tmp_path):
    path = tmp_path / "own.json"
    rows = [{"prompt": "Who?", "answer": "Ann", "reference": ["Anne"]}]
    path.write_text(json.dumps(rows))
    assert load_task("jsonl", path, grader="f1").questions[0].reference == ["Anne"]
    with pytest.raises(UserError, match=r"own.json, problem 1: the answer 'Ann' is none of Anne"):
        load_task("jsonl", path, grader="choice")


def test_a_repeated_problem_counts_once_and_is_told(tmp_path, caplog):
    path = tmp_path / "own.csv"
    path.write_text("prompt,answer\n1+1?,2\n2+2?,4\n1+1?,2\n")
    assert [q.answer for q in load_task("jsonl", path).questions] == ["2", "4"]
    assert f"{path}, problem 3 repeats problem 1; it counts once" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "a"}', "line 2: no column 'answer'; it has prompt"),
        (b'{"answer": "a"}', "line 2: no column 'prompt' or 'messages'; it has answer"),
        (b'{"prompt": "a", "answer": " "}', "line 2: 'answer' must be text"),
        (b'{"prompt": 5, "answer": "a"}', "line 2: 'prompt' must be text"),
        (b'{"messages": [], "answer": "a"}', "line 2: 'messages' must be a list"),
        (b'{"messages": [{"role": "user"}], "answer": "a"}', "'role' and 'content'"),
        (b'{"messages": [{"role": "user", "content": ""}], "answer": "a"}', "'content' must be"),
        (b'{"prompt": "a", ', "line 2: not valid JSON"),
        (b"[1]", "line 2: expected a JSON object, got list"),
        (b'{"prompt": "\xff", "answer": "a"}', "line 2: not UTF-8"),
        (b'{"prompt": "a", "answer": "c"}', "problem 2: the question of problem 1 again"),
    ],
)
def test_jsonl_errors_name_the_line(tmp_path, line, message):
    path = tmp_path / "own.jsonl"
    path.write_bytes(b'{"prompt": "a", "answer": "b"}\n' + line + b"\n")
    with pytest.raises(UserError) as caught:
        load_task("jsonl", path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_other_task_errors(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    for call, message in (
        (lambda: load_task("aime"), "not one of embedded, jsonl, math500, aime24, gsm8k, folio"),
        (lambda: load_task("jsonl"), "needs a file"),
        (lambda: load_task("jsonl", tmp_path / "none"), "cannot read"),
        (lambda: load_task("jsonl", empty), "no problems"),
        (lambda: load_task("embedded", limit=0), "number of problems must be at least 1"),
        (lambda: load_task("embedded", samples=0), "number of samples must be at least 1"),
        (lambda: load_task("embedded", grader="no_such:f"), "cannot import 'no_such'"),
        (lambda: load_task("embedded", grader="choice"), "embedded, problem 1: the answer"),
        (lambda: load_task("embedded", grader="vibes"), "not one of exact, math"),
    ):
        with pytest.raises(UserError, match=message):
            call()
