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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "a"}', "line 2: the key 'answer' is missing"),
        (b'{"answer": "a"}', "line 2: the key 'prompt' (or 'messages') is missing"),
        (b'{"prompt": "a", "answer": " "}', "line 2: 'answer' must be text"),
        (b'{"prompt": 5, "answer": "a"}', "line 2: 'prompt' must be text"),
        (b'{"messages": [], "answer": "a"}', "line 2: 'messages' must be a list"),
        (b'{"messages": [{"role": "user"}], "answer": "a"}', "'role' and 'content'"),
        (b'{"prompt": "a", ', "line 2: not valid JSON"),
        (b"[1]", "line 2: expected a JSON object, got list"),
        (b'{"prompt": "\xff", "answer": "a"}', "line 2: not valid JSON"),
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
        (lambda: load_task("aime"), "not one of embedded, jsonl"),
        (lambda: load_task("jsonl"), "needs a file"),
        (lambda: load_task("jsonl", tmp_path / "none"), "cannot read"),
        (lambda: load_task("jsonl", empty), "no problems"),
        (lambda: load_task("embedded", limit=0), "at least 1"),
        (lambda: load_task("embedded", grader="vibes"), "not one of exact, math"),
    ):
        with pytest.raises(UserError, match=message):
            call()
