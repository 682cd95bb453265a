"""A program with its input, or a function with its tests, run in the sandbox."""

import json
import math
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from rac.evaluation.sandbox.inside.programs import NOT_CONFINED, UNCAUGHT
from rac.evaluation.sandbox.jail import Ended, Jail, Limits, memory_file
from rac.evaluation.sandbox.watching import Files, Watch

STDERR_BYTES = 1 << 14
VERDICT_BYTES = 1 << 20
DEFAULTS = Limits()


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    `status`: "ok" (also after `sys.exit` of any code), "error" (an exception; `reason` names it),
    "timeout", "memory", "output" (it wrote more than allowed) or "crash" (a signal ended it).
    """

    status: str
    stdout: bytes
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether a function passed its tests, and what went wrong in few words."""

    passed: bool
    note: str = ""


class Sandbox:
    """Runs one program, or one function with its tests, at a time; a context manager.

    The keywords are `Jail`'s: layers to leave out.

    Raises:
        UserError: the system cannot confine a program.
    """

    def __init__(self, **layers: bool) -> None:
        self._layers = layers
        self.jail = Jail(**layers)
        self._tests: Jail | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes behind it."""
        for jail in (self.jail, self._tests):
            if jail is not None:
                jail.close()

    def run_program(
        self, sources: Sequence[str], stdin: bytes = b"", limits: Limits = DEFAULTS
    ) -> Outcome:
        """Run `sources`, one after another, as one Python program that reads `stdin`."""
        with Files() as files:
            given = files.own(memory_file(stdin))
            out, out_end = files.pipe()
            error, error_end = files.pipe()
            payload = {"mode": "program", "sources": list(sources)}
            own = _limits(limits, limits.seconds)
            self.jail.spawn(payload, own, [given, out_end, error_end])
            files.close(given, out_end, error_end)
            caps = {out: limits.output_bytes, error: STDERR_BYTES}
            watch = Watch(caps, [self.jail], limits.seconds, tails=[error])
            while not watch.reason and not watch.ended:
                watch.step()
            (ended,) = watch.finish()
        status, reason = _status(ended, watch.reason, bytes(watch.data[error]))
        return Outcome(status, bytes(watch.data[out][: limits.output_bytes]), reason)

    def run_check(
        self,
        candidate: Sequence[str],
        function: str,
        tests: Sequence[str],
        limits: Limits = DEFAULTS,
    ) -> Verdict:
        """Judge a function by a program that defines `check(candidate)`, as HumanEval's tests do.

        `candidate` are the sources that define `function`. Its process and that of `tests` share
        pipes for plain values and nothing else.
        """
        judge = {"sources": list(tests), "function": function}
        return self._judge(candidate, function, judge, limits)

    def run_cases(
        self,
        candidate: Sequence[str],
        function: str,
        cases: Sequence[tuple[list[Any], Any]],
        limits: Limits = DEFAULTS,
    ) -> Verdict:
        """Judge a function, or a method of its class `Solution`, by (arguments, result) pairs.

        The first failure ends it; `limits.seconds` is for each case.
        """
        return self._judge(candidate, function, {"cases": list(cases)}, limits)

    def _judge(
        self, candidate: Sequence[str], function: str, judge: dict[str, Any], limits: Limits
    ) -> Verdict:
        tests = self._tests = self._tests or Jail(**self._layers)
        own = _limits(limits, limits.seconds * (2 + len(judge.get("cases", ()))))
        program = {
            "mode": "candidate",
            "sources": list(candidate),
            "function": function,
            "mutable": "cases" not in judge,
        }
        with Files() as files:
            null = files.own(os.open(os.devnull, os.O_RDWR))
            requests, requests_end = files.pipe()
            replies, replies_end = files.pipe()
            verdict, verdict_end = files.pipe()
            theirs = [replies, requests_end, verdict_end]
            self.jail.spawn(program, own, [null, null, null, requests, replies_end])
            tests.spawn({"mode": "tests", **judge}, own, [null, null, null, *theirs])
            files.close(requests, replies_end, *theirs)
            watch = Watch({verdict: VERDICT_BYTES}, [self.jail, tests], limits.seconds)
            steps = 0
            while not watch.reason and tests not in watch.ended:
                watch.step()
                found = watch.data[verdict].count(b"\n")
                if found > steps:  # loaded, or a case passed
                    steps = found
                    watch.restart()
                if b'"calls"' in watch.data[verdict]:
                    break
            ended, _ = watch.finish()
        return _verdict(bytes(watch.data[verdict]), watch.reason, ended, "cases" in judge)


def _limits(limits: Limits, cpu_seconds: float) -> dict[str, int]:
    return {"cpu_seconds": math.ceil(cpu_seconds) + 1, "memory_bytes": limits.memory_bytes}


def _status(ended: Ended, reason: str, stderr: bytes) -> tuple[str, str]:
    """An outcome's status and reason."""
    if reason:
        return reason, ""
    number = os.WTERMSIG(ended.status) if os.WIFSIGNALED(ended.status) else 0
    if number == signal.SIGXCPU:
        return "timeout", ""
    if number == signal.SIGKILL:  # by the kernel: it was not done here
        return "memory", ""
    if number:
        return "crash", signal.Signals(number).name
    if os.WEXITSTATUS(ended.status) == NOT_CONFINED:
        return "error", "its limits could not be set"
    if os.WEXITSTATUS(ended.status) != UNCAUGHT:
        return "ok", ""
    lines = stderr.decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]
    return ("memory", "") if last.startswith("MemoryError") else ("error", last)


def _verdict(data: bytes, reason: str, candidate: Ended, cases: bool) -> Verdict:
    lines = data.splitlines(keepends=True)
    steps = lines.count(b"{}\n")
    if reason or not lines or b'"calls"' not in lines[-1] or not lines[-1].endswith(b"\n"):
        where = f" on test {steps}" if cases and steps else ""
        return Verdict(False, (reason or "the tests ended without a verdict") + where)
    found = json.loads(lines[-1])
    if found["passed"]:
        return Verdict(True)
    if found["load"]:
        memory = found["load"].startswith("MemoryError")
        return Verdict(False, "memory" if memory else found["load"])
    where = f" on test {found['calls']}" if found["calls"] else ""
    if found["error"] == "Gone":
        return Verdict(False, _end(candidate) + where)
    if found["error"] == "MemoryError" or found["detail"].startswith("MemoryError"):
        return Verdict(False, "memory" + where)
    if found["raised"]:
        return Verdict(False, found["detail"] + where)
    detail = "" if found["error"] == "AssertionError" else f": {found['detail']}"
    return Verdict(False, f"wrong answer{where}{detail}")


def _end(candidate: Ended) -> str:
    """Why a candidate answers no more."""
    if os.WIFEXITED(candidate.status):
        return f"exited with code {os.WEXITSTATUS(candidate.status)}"
    number = os.WTERMSIG(candidate.status)
    if number == signal.SIGXCPU:
        return "timeout"
    if number == signal.SIGKILL:  # here, after a reply that is none, or by the kernel
        return "no reply"
    return f"crash ({signal.Signals(number).name})"
