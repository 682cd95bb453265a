"""Does the code in a response pass the tests of its problem; run in the sandbox."""

import ast
import os
import queue
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

from rac.errors import UserError
from rac.evaluation.code_tests import read_tests, same_output
from rac.evaluation.graders.base import Grade
from rac.evaluation.sandbox import Limits, Sandbox
from rac.evaluation.tasks.base import Question

FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n`]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
# What LiveCodeBench's harness imports before every solution, in its order: `builtins` behind the
# modules whose names hide its own (`open`, `pow`), and its limit of the recursion.
MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools "
    "operator io sys json builtins typing"
)
PREAMBLE = "\n".join(
    [
        *(f"from {module} import *" for module in MODULES.split()),
        *(f"import {module}" for module in MODULES.split()),
        "sys.setrecursionlimit(50000)",
    ]
)


def extract_code(text: str, function: str | None = None) -> str:
    """The code of a final text: its last fenced block, or all of it when it has none.

    The last Python block that defines `function` (at any level) goes before later ones.
    """
    blocks = [(language.lower(), code) for language, code in FENCE.findall(text)]
    if not blocks:
        return text
    if function:
        defines = re.compile(rf"^[ \t]*def[ \t]+{re.escape(function)}\b", re.MULTILINE)
        for language, code in reversed(blocks):
            if language in ("", "python", "python3", "py") and defines.search(code):
                return code
    return blocks[-1][1]


class CodeGrader:
    """Right when every test of the question's `reference` (see evaluation/code_tests.py) passes.

    `grade` may be called from several threads; up to `workers` (None: one for each CPU) programs
    run at a time. `predicted` is the code, `note` what went wrong: "timeout", "memory", "wrong
    answer on test 3", "SyntaxError: ...".

    Raises:
        UserError: the system cannot confine a program.
    """

    def __init__(self, workers: int | None = None, limits: Limits = Limits()) -> None:  # noqa: B008
        if sys.platform != "linux":
            raise UserError("the code grader's sandbox needs Linux; grade on a Linux machine")
        self.limits = limits
        self.workers = workers or len(os.sched_getaffinity(0))
        self._free: queue.SimpleQueue[Sandbox | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._made: list[Sandbox] = []
        for _ in range(self.workers - 1):
            self._free.put(None)
        self._free.put(self._make())  # now: a system that cannot is refused before any work

    def grade(self, final: str, question: Question) -> Grade:
        """Run the tests on the code in `final`; waits while all workers are busy."""
        reference = question.reference
        function = reference.get("function") if isinstance(reference, dict) else None
        code = extract_code(final, function)
        if not code.strip():
            return Grade(False, code, note="no code")
        with self._sandbox() as sandbox:
            note = self._judge(sandbox, code, reference)
        return Grade(not note, code, note=note)

    def grade_all(self, finals: Sequence[str], questions: Sequence[Question]) -> Iterator[Grade]:
        """Grade in parallel; the grades come in the order given."""
        with ThreadPoolExecutor(self.workers) as pool:
            yield from pool.map(self.grade, finals, questions)

    def _judge(self, sandbox: Sandbox, code: str, reference: Any) -> str:
        """What is wrong with `code`; "" when all tests pass."""
        if isinstance(reference, dict) and "check" in reference:
            prompt = reference.get("prompt", "")
            sources = _with_prompt(prompt, code, reference["function"])
            tests = [prompt, reference["check"]]
            return sandbox.run_check(sources, reference["function"], tests, self.limits).note
        pairs = read_tests(reference)
        if reference.get("function"):
            sources = [PREAMBLE, code]
            return sandbox.run_cases(sources, reference["function"], pairs, self.limits).note
        for number, (given, expected) in enumerate(pairs, 1):
            note = self._run(sandbox, code, given, expected)
            if note:
                return note if note.startswith("SyntaxError") else f"{note} on test {number}"
        return ""

    def _run(self, sandbox: Sandbox, code: str, given: str, expected: str) -> str:
        stdin = given.encode("utf-8", "surrogateescape")
        outcome = sandbox.run_program([PREAMBLE, code], stdin, self.limits)
        if outcome.status == "ok":
            found = outcome.stdout.decode("utf-8", "replace")
            return "" if same_output(found, expected) else "wrong answer"
        names = {"output": "too much output", "crash": f"crash ({outcome.reason})"}
        return names.get(outcome.status) or outcome.reason or outcome.status

    @contextmanager
    def _sandbox(self) -> Iterator[Sandbox]:
        sandbox = self._free.get()
        try:
            sandbox = sandbox or self._make()
            yield sandbox
        finally:
            self._free.put(sandbox)

    def _make(self) -> Sandbox:
        sandbox = Sandbox()
        with self._lock:
            self._made.append(sandbox)
        return sandbox

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for sandbox in self._made:
            sandbox.close()


def check_reference(question: Question) -> None:
    """Refuse a question whose reference the code grader cannot use.

    Raises:
        UserError: says what is wrong with it.
    """
    reference = question.reference
    if not (isinstance(reference, dict) and "check" in reference):
        read_tests(reference)
        return
    for key in ("function", "check"):
        if not isinstance(reference.get(key), str):
            raise UserError(f"the code grader needs the text {key!r} in a reference with check")


def _with_prompt(prompt: str, code: str, function: str) -> list[str]:
    """The sources of a solution: behind its prompt, or joined to it when it is only a body."""
    try:
        body = ast.parse(code).body
        defined = any(getattr(node, "name", None) == function for node in body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        defined = re.search(rf"^def[ \t]+{re.escape(function)}\b", code, re.MULTILINE) is not None
    return [prompt, code] if defined or not prompt else [prompt + code]
