"""What a sandboxed process does: a program, a function that answers calls, or tests that call it.

The function and its tests never share a process: all that tests see of a candidate are plain
values on a pipe (values.py), and their verdict leaves on a pipe that the candidate does not have.
"""

import atexit
import builtins
import io
import os
import sys
import threading
import traceback
import types
from typing import Any

from . import values

UNCAUGHT = 70  # the exit code of a program that an exception ended; sysexits.h's EX_SOFTWARE
NOT_CONFINED = 71  # and of one that was not begun, since a limit could not be set; EX_OSERR
REQUESTS, REPLIES, VERDICT = 3, 4, 5  # descriptors beside 0, 1 and 2
MAX_TEXT = 300


class Gone(BaseException):
    """The candidate's process ended or wrote what is no reply; no test may catch it."""


class CannotPass(BaseException):
    """A test's argument is no plain value."""


def execute(sources: list[str], name: str = "solution.py") -> dict[str, Any]:
    """Run the sources one after another as one `__main__`; returns its namespace."""
    module = types.ModuleType("__main__")
    module.__file__ = name
    sys.modules["__main__"] = module
    for source in sources:
        exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def run_program(payload: dict[str, Any]) -> int:
    """Run a program as `python solution.py` would, to its last thread and exit function."""
    code = 0
    try:
        execute(payload["sources"])
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        _print_exception()
        code = UNCAUGHT
    try:
        threading._shutdown()  # waits for threads, as the interpreter does when it ends
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.__stdout__):
            stream.flush()
    except (Exception, KeyboardInterrupt):  # a closed or replaced standard output
        pass
    return code & 0xFF


def _print_exception() -> None:
    try:
        text = "".join(traceback.format_exception(*sys.exc_info(), limit=8))
    except BaseException:  # a hostile __str__
        text = "an exception that cannot be printed"
    os.write(2, text.encode("utf-8", "replace")[-4096:])


def describe(error: BaseException) -> str:
    """The class and the message of `error` in a short line."""
    try:
        text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    except BaseException:
        text = type(error).__name__
    return str(text)[:MAX_TEXT]


def serve_candidate(payload: dict[str, Any]) -> int:
    """Load a candidate, then answer every request with a value or an exception."""
    requests = os.fdopen(REQUESTS, "rb")

    def reply(line: str) -> None:
        data = line.encode() + b"\n"
        while data:
            data = data[os.write(REPLIES, data) :]

    try:
        function = _find(execute(payload["sources"]), payload["function"])
    except BaseException as error:
        reply(values.dumps({"load": describe(error)}))
        return 0
    reply(values.dumps({"load": ""}))
    for line in requests:
        arguments, keywords = values.loads(line)
        try:
            answer = values.dumps({"value": function(*arguments, **keywords)})
            if payload["mutable"]:
                after = values.dumps([arguments, keywords])
                if after.encode() != line.rstrip(b"\n"):
                    reply(values.dumps({"after": arguments}))
        except BaseException as error:
            answer = values.dumps({"raise": type(error).__name__, "text": describe(error)})
        reply(answer)
    return 0


def _find(namespace: dict[str, Any], name: str) -> Any:
    """The function `name`: a method of `Solution` (LeetCode's form) or of the program itself."""
    solution = namespace.get("Solution")
    if hasattr(solution, name):
        return getattr(solution(), name)
    if name not in namespace:
        raise NameError(f"{name} is not defined")
    return namespace[name]


class Candidate:
    """Stands in the tests for the candidate's function; every call goes to its process."""

    def __init__(self) -> None:
        self.calls = 0
        self._replies = os.fdopen(REQUESTS, "rb")
        self._requests = os.fdopen(REPLIES, "wb")

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
    os.write(VERDICT, values.json.dumps(verdict).encode() + b"\n")
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


MODES = {"program": run_program, "candidate": serve_candidate, "tests": run_tests}


def open_streams() -> None:
    """Standard streams on descriptors 0, 1 and 2, as a new interpreter has them."""
    given = io.BufferedReader(io.FileIO(0, "rb", closefd=False), 1 << 16)
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(given, encoding="utf-8", errors="surrogateescape")
    binary = io.BufferedWriter(io.FileIO(1, "wb", closefd=False), 1 << 16)
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(
        binary, encoding="utf-8", errors="surrogateescape"
    )
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(
        io.FileIO(2, "wb", closefd=False), encoding="utf-8", errors="replace", write_through=True
    )
