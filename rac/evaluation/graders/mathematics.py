"""Is the predicted answer equal to the answer as mathematics, by math-verify."""

import json
import logging
import os
import re
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from rac.errors import UserError
from rac.evaluation.answers import BOXED, last_boxed, predicted_answer
from rac.evaluation.graders.base import Grade
from rac.evaluation.tasks.base import Question

MATH_SECONDS = 10.0
START_SECONDS = 60.0
WORKER = Path(__file__).with_name("math_worker.py")
LONGEST_BARE = 80
LONGEST_FINAL = 4000
MARKED = re.compile(r"(?<!\\)\$|\\boxed|\\\(|\\\[")
PROSE = re.compile(r"(?<![\\{A-Za-z])(?:[A-Za-z]{3,}|[A-Za-z]{2}\s+[A-Za-z]{2})")
# "18 dollars", "90°": a number and words. "2 pi" and "2 million" are other numbers.
QUANTITY = re.compile(
    r"(?:\\text\{)?\s*\$?(?P<number>-?[\d,]*\.?\d+(?:/\d+)?)\s*"
    r"(?:°|\s(?!pi\b|hundred|thousand|million|billion|trillion)[a-z]{2,}(?:\s[a-z]+)*)?\.?\s*\}?",
    re.IGNORECASE,
)

logger = logging.getLogger(__name__)


class MathGrader:
    """Right when math-verify holds the two for equal, within `seconds`.

    math-verify runs in its own process: a parse that hangs (`9^{9^{9^9}}` does, inside one call
    that no signal or thread can interrupt) is killed, counts as wrong, and leaves this process
    alone whichever thread it grades from.
    """

    def __init__(self, seconds: float = MATH_SECONDS) -> None:
        if find_spec("math_verify") is None:
            raise UserError("the math grader needs math-verify; pip install math-verify")
        self.seconds = seconds
        self.timeouts = 0
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None

    def grade(self, final: str, question: Question) -> Grade:
        """Whether the prediction in `final` equals the answer as mathematics."""
        predicted = predicted_answer(final)
        if predicted == question.answer.strip():
            return Grade(True, predicted)
        verdict = self._verdict(readings(final), as_latex(question.answer))
        return Grade(bool(verdict), predicted, note="timeout" if verdict is None else "")

    def _verdict(self, texts: list[str], answer: str) -> bool | None:
        """Whether math-verify finds `answer` in one of `texts`; None when it does not say."""
        request = json.dumps({"texts": texts, "answer": answer}) + "\n"
        with self._lock:
            worker = self._worker or self._start()
            assert worker.stdin is not None
            try:
                worker.stdin.write(request.encode())
                worker.stdin.flush()
                reply = _read_line(worker, self.seconds)
            except BrokenPipeError:
                reply = None
            if reply is None:
                self._stop()
                self.timeouts += 1
                logger.warning("math-verify gave no verdict in %g s: %.80r", self.seconds, texts[0])
                return None
        return bool(json.loads(reply))

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        self._worker = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        if _read_line(self._worker, START_SECONDS) is None:
            self._stop()
            raise UserError("math-verify does not start; try: python -c 'import math_verify'")
        return self._worker

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                with suppress(BrokenPipeError):
                    pipe.close()  # type: ignore[union-attr]

    def __enter__(self) -> "MathGrader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()


def as_latex(answer: str) -> str:
    r"""Put a bare answer into `\boxed{}`; leave alone what already marks its mathematics."""
    return answer if MARKED.search(answer) else f"\\boxed{{{answer}}}"


def readings(final: str) -> list[str]:
    r"""The texts that math-verify shall look for the answer in, likeliest first.

    The last `\boxed{}`, and the number alone where it holds a number and words. Where there are
    several boxes the end of the whole text too: math-verify joins `\boxed{1} and \boxed{2}`.
    Without a box, the end of the text, where math-verify looks for "the answer is ..." and then for
    the last number; but a text of one expression is read as that: the last number in "2x" is 2.
    """
    boxed = last_boxed(final)
    bare = (final if boxed is None else boxed).strip(" \n*_`").rstrip(".*_`")
    prose = boxed is None and bool(PROSE.search(bare) or MARKED.search(bare))
    texts = [] if prose and len(bare) > LONGEST_BARE else [as_latex(bare)]
    if quantity := QUANTITY.fullmatch(bare):
        texts.append(quantity["number"])
    if prose or len(BOXED.findall(final)) > 1:
        texts.append(final[-LONGEST_FINAL:])
    return texts


def _read_line(worker: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """One line from the worker; None when it says nothing for `seconds` or has died."""
    assert worker.stdout is not None
    deadline, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        ready, _, _ = select.select([worker.stdout], [], [], max(0.0, left))
        piece = os.read(worker.stdout.fileno(), 4096) if ready else b""
        if not piece:
            return None
        line += piece
    return line
