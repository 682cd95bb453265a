"""Finished layers are written while the next one is solved."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from rac.progress import Stages


class Writer:
    """One thread that writes, one call at a time; a `with` block ends when all is on disk.

    What a call raises, a UserError of a full disk too, surfaces in the caller's thread: at the next
    `submit` or `wait`, or at the end of the block. Where the block itself fails, what it handed
    over is still written. The seconds spent waiting are those of "wait for layers to be written".
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._pool = ThreadPoolExecutor(1, "rac-writer")
        self._pending: Future | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)

    def submit(self, write: Callable[..., Any], *args: Any) -> None:
        """Call `write(*args)` in the thread, once the call before has ended: at most one waits."""
        self.wait()
        self._pending = self._pool.submit(write, *args)

    def wait(self) -> None:
        """Return when everything submitted is on disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._stages.apart("wait for layers to be written"):
                pending.result()
