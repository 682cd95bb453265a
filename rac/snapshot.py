"""Snapshots: the exact state of long work, saved now and then, so that a killed run continues."""

import time
from pathlib import Path
from typing import Any, Protocol

import torch

from rac.errors import UserError, first_line
from rac.files import write_atomic


class Stateful(Protocol):
    """Work that can be frozen and thawed to the bit."""

    def state_dict(self) -> dict[str, Any]:
        """The state, of tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain values, whole or not at all."""
    with write_atomic(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)  # a file object: given a path, torch hides why a write failed


def load_state(path: Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote; None where there is no file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} is damaged ({first_line(error)}); delete it and run again"
        ) from error


class Snapshots:
    """Saves the state of `parts` into one file, at most every `interval` seconds.

    Taking a snapshot changes nothing in the work, so a run that was killed and continued gives the
    same bits as one that was not. A snapshot that takes long is taken more rarely: at most a
    twentieth of the time goes into them.
    """

    def __init__(self, path: Path, interval: float, **parts: Stateful) -> None:
        self.path, self.interval, self.parts = path, interval, parts
        self.due = time.monotonic() + interval

    def restore(self) -> dict[str, Any] | None:
        """Load the last snapshot into the parts; returns its plain values, None without one."""
        state = load_state(self.path)
        if state is None:
            return None
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return state["values"]

    @property
    def ready(self) -> bool:
        """Whether a snapshot is due."""
        return time.monotonic() >= self.due

    def take(self, **values: Any) -> None:
        """Save the parts and some plain `values`."""
        start = time.monotonic()
        state = {name: part.state_dict() for name, part in self.parts.items()}
        save_state(self.path, state | {"values": values})
        self.due = time.monotonic() + max(self.interval, 20 * (time.monotonic() - start))
