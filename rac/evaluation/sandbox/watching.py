"""Reading what sandboxed programs write, until they end, fill their share or run out of time."""

import os
import selectors
import time
from collections.abc import Sequence

from rac.evaluation.sandbox.jail import Ended, Jail

CHUNK = 1 << 16


class Files:
    """Descriptors that are closed at the end of a `with` block, or before."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def own(self, descriptor: int) -> int:
        """Close `descriptor` with the others."""
        self._open.add(descriptor)
        return descriptor

    def pipe(self) -> tuple[int, int]:
        """A pipe: the end to read and the end to write."""
        read, write = os.pipe()
        return self.own(read), self.own(write)

    def close(self, *descriptors: int) -> None:
        """Close these now."""
        for descriptor in descriptors:
            self._open.remove(descriptor)
            os.close(descriptor)

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(*self._open)


class Watch:
    """Collects from pipes while programs run.

    `data` has what came from each pipe: the first `caps[pipe]` bytes and a little more. `reason`
    becomes "timeout" after `seconds`, or "output" when a cap is passed; pipes in `tails` have no
    such cap, and their last bytes are kept. `ended` has the programs that are over.
    """

    def __init__(
        self, caps: dict[int, int], jails: Sequence[Jail], seconds: float, tails: Sequence[int] = ()
    ) -> None:
        self.caps, self.jails, self.seconds, self.tails = caps, jails, seconds, tails
        self.data = {pipe: bytearray() for pipe in caps}
        self.ended: dict[Jail, Ended] = {}
        self.reason = ""
        self._selector = selectors.DefaultSelector()
        for pipe in caps:
            os.set_blocking(pipe, False)
            self._selector.register(pipe, selectors.EVENT_READ)
        for jail in jails:
            self._selector.register(jail.channel, selectors.EVENT_READ, jail)
        self.restart()

    def restart(self) -> None:
        """Give the programs their full time from now on."""
        self._deadline = time.monotonic() + self.seconds

    def step(self) -> None:
        """Wait for something to read, for an end, or for the deadline."""
        left = self._deadline - time.monotonic()
        events = self._selector.select(left) if left > 0 else []
        if not events and left <= 0:
            self.reason = "timeout"
        for key, _ in events:
            if isinstance(key.data, Jail):
                self._selector.unregister(key.fileobj)
                self.ended[key.data] = key.data.ended()
            elif not self._read(key.fd):
                self._selector.unregister(key.fd)

    def _read(self, pipe: int) -> bool:
        """Read once; False at the end of the pipe, or when its cap is passed."""
        try:
            piece = os.read(pipe, CHUNK)
        except BlockingIOError:
            return False
        found = self.data[pipe]
        found += piece
        if len(found) > self.caps[pipe]:
            if pipe in self.tails:
                del found[: -self.caps[pipe]]
            else:
                self.reason = self.reason or "output"
                return False
        return bool(piece)

    def finish(self) -> list[Ended]:
        """End every program, read what is left in the pipes; returns how each ended."""
        self._selector.close()
        running = [jail for jail in self.jails if jail not in self.ended]
        for jail in running:
            jail.kill()
        for jail in running:
            self.ended[jail] = jail.ended()
        for pipe in self.caps:
            while self.reason != "output" and self._read(pipe):
                pass
        return [self.ended[jail] for jail in self.jails]
