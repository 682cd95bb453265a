"""Tables 1 and 2 of the RAC paper, in its layout, with our numbers and beside them its own."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from rac.report.entries import CALIBRATIONS, Entry
from rac.report.grid import Cell, Grid, Row
from rac.report.paper.pruning import (
    ACCURACY_AND_MINUTES,
    TABLES,
    Number,
    Reported,
    size_of,
)
from rac.report.paper.pruning import CALIBRATIONS as PAPER_CALIBRATIONS
from rac.report.runs import Section
from rac_kernels import Pattern

PAPER_SOLVER = "sparsegpt"


def format_pattern(pattern: str) -> str:
    """Write a pattern as people do: "0.6" is "60%", "2:4" and "dense" stay."""
    return pattern if pattern == "dense" or ":" in pattern else f"{100 * float(pattern):g}%"


def format_minutes(minutes: float) -> str:
    """Minutes with three figures or so."""
    return f"{minutes:.1f}" if minutes >= 10 else f"{minutes:.2f}"


def calibrations_of(section: Section) -> tuple[str, ...]:
    """The calibrations that occur, in the paper's order."""
    return _ordered(e.result.calibration for e in section.pruned)


def _ordered(calibrations: Iterable[str]) -> tuple[str, ...]:
    found = set(calibrations)
    known = [name for name in CALIBRATIONS if name in found]
    return (*known, *sorted(found - set(known)))


def reported(number: Number | None) -> str:
    """The paper's number as it prints it."""
    if number is None:
        return ""
    return f"{number.text} ({number.stderr})" if number.stderr else number.text


def paper_model(section: Section, task: str | None = None) -> str | None:
    """The section's model as the paper calls it, if it has `task` (any task when None)."""
    here = section.entries[0]
    return size_of(here.source) if task in (None, here.result.task) else None


def table1(section: Section, suffix: str = "") -> Grid:
    """Tables 1 and 2: rows of dense and each pattern (and solver), columns calibrations.

    Two runs of the same pattern, solver and calibration get a row each, with their names. The
    paper's rows are there when the model and the task are the paper's.
    """
    task = section.entries[0].result.task
    model = paper_model(section)
    paper = {
        key[2:]: cell for key, cell in ACCURACY_AND_MINUTES.items() if key[:2] == (task, model)
    }
    used = chain(calibrations_of(section), PAPER_CALIBRATIONS if paper else ())
    calibrations = _ordered(used)
    groups = _grouped(section, {label for label, _ in paper} - {"dense"})
    solvers = {solver for _, solver, _ in groups}
    rows = _dense_rows(section, paper, max(1, len(calibrations)))
    for (pattern, solver, copy), entries in sorted(groups.items(), key=_group_order):
        label = format_pattern(pattern) + (f", {solver}" if len(solvers) > 1 else "")
        if copy:
            label += f" ({', '.join(e.run for e in entries)})"
        beside = paper if solver == PAPER_SOLVER and not copy else {}
        rows.append(_pattern_row(label, format_pattern(pattern), entries, calibrations, beside))
    names = calibrations or ("dense",)
    return Grid(
        f"table1{suffix}",
        f"{TABLES.get(task, 'Table 1')}. Accuracy and evaluation time",
        ("Sparsity",),
        (("Accuracy ± standard error", names), ("Time (minutes)", names)),
        tuple(rows),
        "Best accuracy and shortest time of each row in bold. The standard error is that of a "
        "proportion, √(p(1 − p)/n); the calibrations of a row answer the same problems.",
    )


Groups = dict[tuple[str, str, int], list[Entry]]


def _grouped(section: Section, paper_labels: set[str]) -> Groups:
    """Entries by pattern, solver and how often that calibration was there before."""
    groups: Groups = {}
    for e in section.pruned:
        key = (e.result.pattern, e.result.solver or "")
        same = [x for found, rows in groups.items() if found[:2] == key for x in rows]
        copy = sum(x.result.calibration == e.result.calibration for x in same)
        groups.setdefault((*key, copy), []).append(e)
    for label in paper_labels:
        pattern = f"{float(label.rstrip('%')) / 100:g}"
        groups.setdefault((pattern, PAPER_SOLVER, 0), [])
    return groups


def _group_order(item: tuple[tuple[str, str, int], list[Entry]]) -> tuple:
    pattern, solver, copy = item[0]
    parsed = Pattern.parse(pattern)
    return parsed.structured, parsed.sparsity, pattern, solver, copy


def _dense_rows(section: Section, paper: dict[tuple[str, str], Reported], span: int) -> list[Row]:
    beside = paper.get(("dense", "dense"))
    rows = []
    for entry in (e for e in section.entries if e.dense):
        label = entry.run if len(section.entries) == 1 else "dense"
        cells = (accuracy_cell(entry, span=span), _minutes_cell(entry, span=span))
        rows.append(Row((label,), _beside(cells, beside), dense=True))
    if not rows and beside:
        rows.append(
            Row(("dense",), _beside((Cell(span=span), Cell(span=span)), beside), dense=True)
        )
    return rows


def _beside(cells: tuple[Cell, Cell], paper: Reported | None) -> tuple[Cell, Cell]:
    if paper is None:
        return cells
    accuracy, minutes = cells
    return (
        Cell(**vars(accuracy) | {"paper": reported(paper.accuracy)}),
        Cell(**vars(minutes) | {"paper": reported(paper.minutes)}),
    )


def _pattern_row(
    label: str,
    pattern: str,
    entries: Sequence[Entry],
    calibrations: Sequence[str],
    paper: dict[tuple[str, str], Reported],
) -> Row:
    found = {e.result.calibration: e for e in entries}
    best = _best([accuracy_cell(e).text for e in entries], max)
    fastest = _best([_minutes_cell(e).text for e in entries], min)
    pairs = []
    for name in calibrations:
        entry = found.get(name)
        cells = (accuracy_cell(entry, best), _minutes_cell(entry, fastest)) if entry else None
        pairs.append(_beside(cells or (Cell(), Cell()), paper.get((pattern, name))))
    return Row((label,), (*(a for a, _ in pairs), *(m for _, m in pairs)))


def _best(texts: Sequence[str], choose: Callable) -> str | None:
    """The best number as it is printed; None when all print the same."""
    return choose(texts, key=float) if len(set(texts)) > 1 else None


def accuracy_cell(entry: Entry, best: str | None = None, span: int = 1, paper: str = "") -> Cell:
    """Accuracy and standard error of an entry."""
    text = f"{entry.result.accuracy:.3f}"
    return Cell(text, f"{entry.result.stderr:.3f}", paper, text == best, span)


def _minutes_cell(entry: Entry, best: str | None = None, span: int = 1) -> Cell:
    text = format_minutes(entry.result.minutes)
    return Cell(text, best=text == best, span=span)
