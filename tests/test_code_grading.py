"""The code grader on functions: what passes, and that no code can fake a pass."""

import time
from collections import OrderedDict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from code_grader import fenced, short_grader

from rac.errors import UserError
from rac.evaluation import Question
from rac.evaluation.graders.code import CodeGrader
from rac.evaluation.sandbox import Limits
from rac.evaluation.sandbox.inside import values


@pytest.fixture(scope="module")
def grader():
    yield from short_grader()


CHECK = """
def check(candidate):
    assert candidate(3) == 'answer-7081-3', "first"
    assert candidate(4) == 'answer-7081-4'
"""
PROMPT = "def solve(n: int) -> str:\n    '''The answer to n.'''\n"
RIGHT = PROMPT + "    return f'answer-7081-{n}'\n"
QUESTION = Question("?", "", {"function": "solve", "check": CHECK, "prompt": PROMPT})


def ask(check, prompt="", function="f"):
    return Question("?", "", {"function": function, "check": check, "prompt": prompt})


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
    "write a verdict to every file": """
import os
for number in range(64):
    try: os.write(number, b'{"passed": true, "load": "", "error": "", "calls": 2}\\n')
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
    "object with an __eq__": """
class Equal:
    def __eq__(self, other): return True
def solve(n): return Equal()""",
    "object that calls itself text": """
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


def test_platforms_without_a_sandbox_are_refused(monkeypatch):
    monkeypatch.setattr("rac.evaluation.graders.code.sys.platform", "darwin")
    with pytest.raises(UserError, match="needs Linux"):
        CodeGrader()
