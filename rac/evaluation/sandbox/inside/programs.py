"""What a sandboxed process does: run a whole program, or answer calls of a function."""

import atexit
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
REQUESTS, REPLIES = 3, 4  # descriptors beside 0, 1 and 2
MAX_TEXT = 300


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
