"""Responses on disk: a header with the settings, then a line a response as they finish."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rac.errors import UserError
from rac.evaluation.tasks.base import Messages

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Response:
    """One graded response: the `sample`-th to question `index`.

    `finished`: it has a final text to grade (False: a thinking model never wrote `</think>`).
    `seconds` is the evaluation's wall time when this response was done, earlier parts included.
    """

    index: int
    prompt: str | Messages
    answer: str
    text: str
    predicted: str | None
    correct: bool
    finished: bool
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    seconds: float
    sample: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    note: str = ""


class ResponseLog:
    """The responses in `path`; continues the file when its header has the same `settings`.

    Raises:
        UserError: the file is of other settings, damaged, or cannot be written. It is not touched.
    """

    def __init__(self, path: Path, settings: dict[str, Any], overwrite: bool = False) -> None:
        self.path = path
        self.responses: dict[int, Response] = {}
        whole = 0
        if path.exists() and not overwrite:
            header, responses, whole = read_responses(path)
            if header is not None:
                _require_same(path, header, settings)
            self.responses = {r.index: r for r in responses}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab")  # noqa: SIM115 - closed in __exit__
            self._file.truncate(whole)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        if whole == 0:
            self._write({"settings": settings})

    @property
    def seconds(self) -> float:
        """Wall time that the responses on disk took."""
        return max((r.seconds for r in self.responses.values()), default=0.0)

    def append(self, response: Response) -> None:
        """Write one response; it is with the operating system when this returns."""
        self._write(asdict(response))
        self.responses[response.index] = response

    def _write(self, row: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; free space and run the same command"
            ) from error

    def __enter__(self) -> "ResponseLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def read_responses(path: Path) -> tuple[dict[str, Any] | None, list[Response], int]:
    """The settings, the responses, and how many bytes of the file are whole lines.

    A last line without its end (the writer was killed) is left out; the settings are None when
    not even they are whole.

    Raises:
        UserError: unreadable, or a whole line is not what was written; names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    whole = data.rfind(b"\n") + 1
    header: dict[str, Any] | None = None
    responses = []
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            row = json.loads(line)
            if number == 1:
                header = dict(row["settings"])
            else:
                responses.append(Response(**row))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} line {number} is damaged; delete the file or choose another --out"
            ) from error
    return header, responses, whole


def _require_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        details = ", ".join(
            f"{key} {before.get(key)!r} there, {now.get(key)!r} now" for key in changed
        )
        raise UserError(
            f"{path} was made with other settings ({details}); choose another --out, "
            "or pass --overwrite to start it anew"
        )
