"""Responses on disk: a header with the settings, then a line a response as they finish."""

import json
import logging
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from pydantic.dataclasses import dataclass

from rac.engines import Completion
from rac.errors import UserError
from rac.evaluation.tasks.base import Messages

logger = logging.getLogger(__name__)

EARLIER = {"engine": "transformers", "samples": 1, "budgets": []}  # of files that lack them


@dataclass(frozen=True)
class Cut:
    """The verdict on a response whose generation had stopped at a budget of tokens."""

    correct: bool
    predicted: str | None
    finished: bool


@dataclass(frozen=True)
class Response:
    """One graded response: the `sample`-th to question `index`.

    `finished`: it has a final text to grade (False: a thinking model never wrote `</think>`).
    `seconds` is the evaluation's wall time when this response was done, earlier parts included.
    `budgets` has the verdict at every budget of tokens that the response is longer than.
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
    budgets: dict[int, Cut] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, int]:
        """Question and sample: what is answered once."""
        return self.index, self.sample


@dataclass(frozen=True)
class Ungraded:
    """A response as it came from the engine, written down before it is graded."""

    index: int
    sample: int
    completion: Completion
    seconds: float

    @property
    def key(self) -> tuple[int, int]:
        """Question and sample."""
        return self.index, self.sample


Row = TypeVar("Row", Response, Ungraded)


class Log(Generic[Row]):
    """The rows in `path`, by question and sample; continues a file with the same `settings`.

    Raises:
        UserError: the file is of other settings, damaged, or cannot be written. It is not touched.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], kind: type[Row], overwrite: bool = False
    ) -> None:
        self.path = path
        self.rows: dict[tuple[int, int], Row] = {}
        whole = 0
        if path.exists() and not overwrite:
            header, rows, whole = read_log(path, kind)
            if header is not None:
                _require_same(path, header, settings)
            self.rows = {row.key: row for row in rows}
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
        """Wall time that the rows on disk took."""
        return max((row.seconds for row in self.rows.values()), default=0.0)

    def append(self, row: Row) -> None:
        """Write one row; it is with the operating system when this returns."""
        self._write(asdict(row))
        self.rows[row.key] = row

    def _write(self, row: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; free space and run the same command"
            ) from error

    def __enter__(self) -> Self:
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
    return read_log(path, Response)


def read_log(path: Path, kind: type[Row]) -> tuple[dict[str, Any] | None, list[Row], int]:
    """`read_responses` of rows of any `kind`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    whole = data.rfind(b"\n") + 1
    header: dict[str, Any] | None = None
    rows: dict[tuple[int, int], Row] = {}
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            row = json.loads(line)
            if number == 1:
                header = dict(row["settings"])
                continue
            read = kind(**row)
            if read.key in rows:
                raise ValueError("written twice")
            rows[read.key] = read
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} line {number} is damaged; delete the file or choose another --out"
            ) from error
    return header, list(rows.values()), whole


def _require_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    before = EARLIER | before
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        details = ", ".join(
            f"{key} {before.get(key)!r} there, {now.get(key)!r} now" for key in changed
        )
        raise UserError(
            f"{path} was made with other settings ({details}); choose another --out, "
            "or pass --overwrite to start it anew"
        )
