"""Table 1 in the paper's layout, and the sentence at the top of the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rac.report.runs import CALIBRATIONS, Entry, Section


@dataclass(frozen=True)
class Cell:
    """A number as text, its standard error as text, and whether it is the best of its row."""

    text: str
    stderr: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One row of Table 1; None is an empty cell. A dense row has one cell for all calibrations."""

    label: str
    accuracy: tuple[Cell | None, ...]
    minutes: tuple[Cell | None, ...]
    dense: bool = False


@dataclass(frozen=True)
class Table:
    """Table 1: sparsity x calibration."""

    calibrations: tuple[str, ...]
    rows: tuple[Row, ...]


def format_pattern(pattern: str) -> str:
    """Write a pattern as people do: "0.6" is "60%", "2:4" and "dense" stay."""
    return pattern if pattern == "dense" or ":" in pattern else f"{100 * float(pattern):g}%"


def format_minutes(minutes: float) -> str:
    """Minutes with three figures or so."""
    return f"{minutes:.1f}" if minutes >= 10 else f"{minutes:.2f}"


def calibrations_of(section: Section) -> tuple[str, ...]:
    """The calibrations that occur, in the paper's order."""
    found = {e.result.calibration for e in section.pruned}
    known = [name for name in CALIBRATIONS if name in found]
    return (*known, *sorted(found - set(known)))


def table1(section: Section) -> Table:
    """Rows of dense and each pattern (and solver, where there are several), columns calibrations.

    Two runs of the same pattern, solver and calibration get a row each, with their names.
    """
    calibrations = calibrations_of(section)
    rows = [
        Row(e.run if len(section.entries) == 1 else "dense", (_accuracy(e),), (_minutes(e),), True)
        for e in section.entries
        if e.dense
    ]
    solvers = {e.result.solver for e in section.pruned}
    grouped: dict[tuple, list[Entry]] = {}
    for entry in section.pruned:
        key = (entry.result.pattern, entry.result.solver)
        copy = sum(e.result.calibration == entry.result.calibration for e in _all(grouped, key))
        grouped.setdefault((*key, copy), []).append(entry)
    for (pattern, solver, copy), entries in grouped.items():
        label = format_pattern(pattern) + (f", {solver}" if len(solvers) > 1 else "")
        if copy:
            label += f" ({', '.join(e.run for e in entries)})"
        rows.append(_row(label, entries, calibrations))
    return Table(calibrations, tuple(rows))


def _all(grouped: dict[tuple, list[Entry]], key: tuple) -> list[Entry]:
    return [e for found, entries in grouped.items() if found[:2] == key for e in entries]


def _row(label: str, entries: Sequence[Entry], calibrations: Sequence[str]) -> Row:
    found = {e.result.calibration: e for e in entries}
    best = _best([_accuracy(e).text for e in entries], max)
    fastest = _best([_minutes(e).text for e in entries], min)
    cells = [found.get(name) for name in calibrations]
    return Row(
        label,
        tuple(e and _accuracy(e, best) for e in cells),
        tuple(e and _minutes(e, fastest) for e in cells),
    )


def _best(texts: Sequence[str], choose: Callable) -> str | None:
    """The best number as it is printed; None when all print the same."""
    return choose(texts, key=float) if len(set(texts)) > 1 else None


def _accuracy(entry: Entry, best: str | None = None) -> Cell:
    text = f"{entry.result.accuracy:.3f}"
    return Cell(text, f"{entry.result.stderr:.3f}", text == best)


def _minutes(entry: Entry, best: str | None = None) -> Cell:
    text = format_minutes(entry.result.minutes)
    return Cell(text, best=text == best)


def telling_pattern(section: Section, patterns: Sequence[str] | None = None) -> str | None:
    """The pattern to look at: the sparsest at which `rac` still has half of dense's accuracy.

    Among equally sparse ones the hardest (lowest `rac` accuracy); when `rac` is below half
    everywhere, the pattern where it is most accurate. None when nothing was pruned with `rac`.
    Only `patterns` are looked at when given. Without a dense run, half of the best accuracy.
    """
    candidates = [
        e
        for e in section.pruned
        if e.result.calibration == "rac" and (patterns is None or e.result.pattern in patterns)
    ]
    if not candidates:
        return None
    reference = section.dense or max(section.entries, key=lambda e: e.result.accuracy)
    good = [e for e in candidates if e.result.accuracy >= reference.result.accuracy / 2]
    if not good:
        return max(candidates, key=lambda e: e.result.accuracy).result.pattern
    return max(good, key=lambda e: (e.pattern.sparsity, -e.result.accuracy)).result.pattern


def summary(section: Section) -> str:
    """Say in a sentence or two what was found, from the numbers alone."""
    n = section.entries[0].result.n
    pattern = telling_pattern(section)
    if pattern is None:
        listed = "; ".join(f"{_name(e)} {_percent(e)}" for e in section.entries)
        return f"Share of {n} problems answered correctly: {listed}."
    entries = [e for e in section.pruned if e.result.pattern == pattern]
    main = next(e for e in entries if e.result.calibration == "rac")
    others = [e for e in (section.dense, *entries) if e is not None and e is not main]
    sentence = (
        f"At {format_pattern(pattern)} sparsity, calibrated on its own chains of thought (rac), "
        f"the model answers {_percent(main)} of {n} problems correctly"
    )
    time = f"The evaluation takes {format_minutes(main.result.minutes)} minutes"
    if not others:
        return f"{sentence}. {time}."
    sentence += ", against " + _listed([f"{_percent(e)} {_short(e)}" for e in others])
    times = _listed([f"{format_minutes(e.result.minutes)} {_short(e)}" for e in others])
    return f"{sentence}. {time}, against {times}."


def _listed(parts: Sequence[str]) -> str:
    """Join as prose does: "a, b and c"."""
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


def _percent(entry: Entry) -> str:
    return f"{100 * entry.result.accuracy:.1f}% (± {100 * entry.result.stderr:.1f})"


def _short(entry: Entry) -> str:
    return "dense" if entry.dense else f"with {entry.result.calibration}"


def _name(entry: Entry) -> str:
    if entry.dense:
        return "dense"
    return f"{format_pattern(entry.result.pattern)} {entry.result.calibration}"
