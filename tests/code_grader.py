"""A grader of code with short limits, and how a response carries code."""

from rac.evaluation.graders.code import CodeGrader
from rac.evaluation.sandbox import Limits


def short_grader():
    with CodeGrader(workers=2, limits=Limits(seconds=10.0, memory_bytes=1 << 30)) as made:
        yield made


def fenced(code):
    return f"Here it is.\n```python\n{code}\n```\nDone."
