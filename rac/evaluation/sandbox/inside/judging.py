"""The tests of a function, in a process of their own.

All that they see of a candidate are plain values on a pipe (values.py), and their verdict leaves on
a pipe that the candidate does not have.
"""

import builtins
import json
import os
from typing import Any

from . import values
from .programs import describe, execute

REPLIES, REQUESTS, VERDICT = 3, 4, 5  # descriptors beside 0, 1 and 2


class Gone(BaseException):
    """The candidate's process ended or wrote what is no reply; no test may catch it."""


class CannotPass(BaseException):
    """A test's argument is no plain value."""


class Candidate:
    """Stands in the tests for the candidate's function; every call goes to its process."""

    def __init__(self) -> None:
        self.calls = 0
        self._replies = os.fdopen(REPLIES, "rb")
        self._requests = os.fdopen(REQUESTS, "wb")

    def loaded(self) -> str:
        """Why the candidate could not be loaded; "" when it was."""
        return str(self._reply()["load"])

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Have the candidate answer; its built-in exceptions are raised here again."""
        self.calls += 1
        line = values.dumps([list(arguments), keywords])
        if '{"object": ' in line and _opaque(arguments, keywords):
            raise CannotPass("a test passes what is no plain value")
        try:
            self._requests.write(line.encode() + b"\n")
            self._requests.flush()
        except OSError as error:
            raise Gone from error
        reply = self._reply()
        if "after" in reply:
            _update(arguments, reply["after"])
            reply = self._reply()
        if "raise" in reply:
            raise _same_exception(str(reply["raise"]), str(reply["text"]))
        return reply["value"]

    def _reply(self) -> dict[str, Any]:
        line = self._replies.readline()
        try:
            reply = values.loads(line)
        except (ValueError, OverflowError) as error:
            raise Gone from error
        if not line.endswith(b"\n") or not isinstance(reply, dict):
            raise Gone
        if not {"load", "value", "after"} & reply.keys() and not {"raise", "text"} <= reply.keys():
            raise Gone
        return reply


def _same_exception(name: str, text: str) -> Exception:
    """The built-in exception `name`, which a test may expect, or else a RuntimeError."""
    kind = getattr(builtins, name, None)
    try:
        error = kind(text) if issubclass(kind, Exception) else RuntimeError(text)
    except TypeError:  # no class, or one that needs more than a message
        error = RuntimeError(text)
    error.from_candidate = text
    return error


def _opaque(*found: Any) -> bool:
    """Whether a value that is no plain one is among the containers `found`."""
    try:
        decoded = values.loads(values.dumps(found))
    except ValueError:
        return True
    stack = [decoded]
    while stack:
        item = stack.pop()
        if isinstance(item, values.Opaque):
            return True
        if isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            stack += item
    return False


def _update(arguments: tuple[Any, ...], after: Any) -> None:
    """Change the tests' own arguments in place, as the candidate changed its copies."""
    for mine, theirs in zip(arguments, after, strict=True):
        if isinstance(mine, list) and isinstance(theirs, list):
            mine[:] = theirs
        elif isinstance(mine, dict | set) and isinstance(theirs, type(mine)):
            mine.clear()
            mine.update(theirs)


def run_tests(payload: dict[str, Any]) -> int:
    """Judge the candidate and write the verdict, a line of JSON."""
    candidate = Candidate()
    verdict: dict[str, Any] = {"passed": False, "load": "", "error": "", "detail": ""}
    try:
        verdict["load"] = candidate.loaded()
        if not verdict["load"]:
            os.write(VERDICT, b"{}\n")  # loaded: the time limit starts anew
            judge = run_cases if "cases" in payload else run_check
            judge(payload, candidate)
            verdict["passed"] = True
    except BaseException as error:
        verdict["error"] = type(error).__name__
        verdict["detail"] = getattr(error, "from_candidate", "") or describe(error)
        verdict["raised"] = hasattr(error, "from_candidate")
    verdict["calls"] = candidate.calls
    os.write(VERDICT, json.dumps(verdict).encode() + b"\n")
    return 0


def run_check(payload: dict[str, Any], candidate: Candidate) -> None:
    """HumanEval's form: a program that defines `check(candidate)` and asserts in it."""
    namespace = execute(payload["sources"], "tests.py")
    namespace[payload["function"]] = candidate
    namespace["check"](candidate)


def run_cases(payload: dict[str, Any], candidate: Candidate) -> None:
    """LiveCodeBench's form: arguments and what the function must return; a tuple is a list."""
    for arguments, expected in payload["cases"]:
        found = candidate(*arguments)
        if isinstance(found, tuple):
            found = list(found)
        assert found == expected
        os.write(VERDICT, b"{}\n")
