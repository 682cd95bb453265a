"""Stages of a run: a progress bar on a terminal, a log line otherwise, seconds always."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger("rac")


class Stages:
    """Tracks the stages of a run and the seconds spent in each."""

    def __init__(self, quiet: bool = False) -> None:
        self.bars = not quiet and sys.stderr.isatty()
        self.seconds: dict[str, float] = {}
        self._apart = 0.0

    @contextmanager
    def apart(self, name: str) -> Iterator[None]:
        """Count the seconds of a block under `name`, not under the stage that it is part of."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            self._apart += seconds

    @contextmanager
    def stage(
        self, name: str, total: int, unit: str = "tokens", done: int = 0
    ) -> Iterator[Callable[[int], None]]:
        """Time a stage; call the yielded function with the units done since its last call."""
        start, count = time.perf_counter(), 0
        self._apart = 0.0

        def count_up(units: int) -> None:
            nonlocal count
            count += units

        try:
            if self.bars:
                with _bar() as bar:
                    task = bar.add_task(name, total=total, completed=done, unit=unit)
                    yield lambda units: bar.advance(task, units)
            else:
                log.info("%s: %s %s", name, f"{total:,}", unit)
                yield count_up
        finally:
            seconds = time.perf_counter() - start - self._apart
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        log.info("%s: done in %.1f s", name, seconds)


def _bar() -> "Progress":
    from rich import progress  # here: not every machine that prunes has a terminal, or rich
    from rich.console import Console
    from rich.text import Text

    class SpeedColumn(progress.ProgressColumn):
        """Units a second, or nothing before they are known."""

        def render(self, task: progress.Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s")

    return progress.Progress(
        progress.TextColumn("{task.description:<22}"),
        progress.BarColumn(bar_width=28),
        progress.MofNCompleteColumn(),
        SpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
