"""Is the predicted answer equal to the answer as mathematics, by math-verify."""

import json
import logging
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from rac.errors import UserError
from rac.evaluation.answers import predicted_answer
from rac.evaluation.graders.base import Grade
from rac.evaluation.tasks.base import Question

MATH_SECONDS = 10.0
START_SECONDS = 60.0
WORKER = Path(__file__).with_name("math_worker.py")

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
        self._worker: subprocess.Popen[bytes] | None = None

    def grade(self, final: str, question: Question) -> Grade:
        """Whether the prediction in `final` equals the answer as mathematics."""
        predicted = predicted_answer(final)
        return Grade(self.equal(predicted, question.answer), predicted)

    def equal(self, predicted: str, answer: str) -> bool:
        """Whether the two are equal as mathematics."""
        if predicted.strip() == answer.strip():
            return True
        worker = self._worker or self._start()
        assert worker.stdin is not None
        request = json.dumps({"predicted": predicted, "answer": answer}) + "\n"
        try:
            worker.stdin.write(request.encode())
            worker.stdin.flush()
            reply = _read_line(worker, self.seconds)
        except BrokenPipeError:
            reply = None
        if reply is None:
            self._stop()
            self.timeouts += 1
            logger.warning("math-verify gave no verdict in %g s: %.80r", self.seconds, predicted)
            return False
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
