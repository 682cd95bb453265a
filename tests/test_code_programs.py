"""The code grader: what is extracted, and programs that read their input."""

import pytest
from code_grader import fenced, short_grader

from rac.evaluation import Question
from rac.evaluation.code_tests import same_output
from rac.evaluation.graders.code import extract_code


@pytest.fixture(scope="module")
def grader():
    yield from short_grader()


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
