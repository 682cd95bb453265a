"""Run directories in, rows and comparable sections out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rac.errors import UserError
from rac.evaluation import EvalResult
from rac.files import read_json
from rac.report.entries import Entry, PruneRecord
from rac_kernels import Pattern

COMPARABLE = (
    *("task", "problems", "n", "grader", "prompts"),
    *("max_new_tokens", "temperature", "top_p"),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Section:
    """Entries that may be compared: one source model, the same problems, the same sampling."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def dense(self) -> Entry | None:
        """The first dense entry."""
        return next((e for e in self.entries if e.dense), None)

    @property
    def pruned(self) -> tuple[Entry, ...]:
        """All entries but the dense ones."""
        return tuple(e for e in self.entries if not e.dense)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that all entries share."""
        return self.entries[0].result.settings


def read_entries(runs: Sequence[Path]) -> list[Entry]:
    """Read every evaluation of every run directory.

    Raises:
        UserError: names the directory and what is missing or broken in it.
    """
    paths = list({Path(run).resolve(): Path(run) for run in runs}.values())
    if not paths:
        raise UserError("a report needs at least one run directory; name them")
    names = [path.resolve().name for path in paths]
    entries = []
    for path, name in zip(paths, names, strict=True):
        run = name if names.count(name) == 1 else str(path)
        entries += _read_run(path, run)
    return sorted(entries, key=lambda entry: entry.order)


def _read_run(path: Path, run: str) -> list[Entry]:
    if not path.is_dir():
        raise UserError(f"{path}: no such run directory")
    record_path = path / "model" / "rac.json"
    record = _read(record_path, PruneRecord) if record_path.is_file() else None
    summaries = sorted((path / "eval").glob("*.json"))
    if not summaries:
        begun = any((path / "eval").glob("*.jsonl"))
        missing = "its evaluation is not finished" if begun else "no eval/*.json in it"
        raise UserError(f"{path}: {missing}; run `rac eval --out {path}` first")
    entries = []
    for summary in summaries:
        result = _read(summary, EvalResult)
        _require_pattern(summary, result.pattern)
        same = record is None or (result.pattern, result.calibration, result.solver) == (
            *(record.pattern, record.calibration, record.solver),
        )
        if not same:
            raise UserError(
                f"{path}: eval/{summary.name} is of {result.pattern} {result.calibration}, "
                f"model/rac.json of {record.pattern} {record.calibration}; "
                "evaluate each model into its own directory"
            )
        entries.append(Entry(path, run, result, record))
        entries[-1].evaluation  # noqa: B018 - damaged responses are named before anything is written
    return entries


def _read(path: Path, kind: type) -> Any:
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise UserError(f"{path}: {where}: {first['msg'].lower()}; make the file again") from error


def _require_pattern(path: Path, pattern: str) -> None:
    try:
        if pattern != "dense":
            Pattern.parse(pattern)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def make_sections(entries: Sequence[Entry]) -> list[Section]:
    """Group entries that may be compared; what differs otherwise becomes a note."""
    groups: dict[tuple, list[Entry]] = {}
    for entry in entries:
        settings = entry.result.settings
        key = (entry.source, *(settings.get(name) for name in COMPARABLE))
        groups.setdefault(key, []).append(entry)
    return [Section(tuple(group), tuple(_notes(group))) for group in groups.values()]


def _notes(entries: Sequence[Entry]) -> list[str]:
    notes = []
    for what, values in (
        ("devices", {e.result.device for e in entries}),
        ("batch sizes", {e.result.batch_size for e in entries}),
        ("dtypes", {e.result.settings.get("dtype") for e in entries}),
    ):
        if len(values) > 1:
            listed = ", ".join(sorted(map(str, values)))
            notes.append(f"Minutes are not comparable: the runs used different {what} ({listed}).")
    seeds = {e.result.settings.get("seed") for e in entries}
    if len(seeds) > 1:
        notes.append(f"The runs were sampled with different seeds ({sorted(map(str, seeds))}).")
    return notes
