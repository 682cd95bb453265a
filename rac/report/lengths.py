"""Tables 4 and 5 of "When Reasoning Meets Compression": the shortest and the longest outputs."""

from collections.abc import Sequence

from rac.evaluation.verbosity import ShortLong, short_and_long
from rac.report.compression import (
    PAPER_CALIBRATION,
    by_calibration,
    compression_label,
    model_of,
    split,
    task_name,
    tasks_of,
)
from rac.report.entries import Entry
from rac.report.grid import Cell, Grid, Row
from rac.report.paper.compression import SHORT_AND_LONG, SHORT_LONG_TASKS
from rac.report.tables import format_pattern

TABLE_NUMBERS = {30: 4, 20: 5}
COLUMNS = ("Short", "Long", "Ratio", "in tokens")


def length_tables(entries: Sequence[Entry]) -> list[Grid]:
    """The two tables of entries whose responses were kept; none where no entry's were."""
    kept = [e for e in entries if e.evaluation is not None]
    groups = split(kept).items() if kept else ()
    return [_table(group, percent, suffix) for suffix, group in groups for percent in TABLE_NUMBERS]


def _table(entries: Sequence[Entry], percent: int, suffix: str) -> Grid:
    tasks = [
        task
        for task in tasks_of(entries, SHORT_LONG_TASKS)
        if task in SHORT_LONG_TASKS or any(e.result.task == task for e in entries)
    ]
    models = dict.fromkeys(model_of(e)[0] for e in entries)
    paper = {(r.model, r.compression): r for r in SHORT_AND_LONG[percent] if r.model in models}
    rows: dict[tuple[str, str], dict[str, ShortLong | None]] = {key: {} for key in paper}
    for e in entries:
        assert e.evaluation is not None
        label = compression_label(e, format_pattern(e.result.pattern), by_calibration(e))
        found = rows.setdefault((model_of(e)[0], label), {})
        found.setdefault(e.result.task, short_and_long(e.evaluation.responses, percent))
    made = []
    for key, found in sorted(rows.items(), key=lambda item: item[0][0]):
        cells: list[Cell] = []
        for task in tasks:
            beside = paper[key].texts.get(task) if key in paper else None
            cells += _cells(found.get(task), beside or ("", "", ""))
        made.append(Row(key, tuple(cells)))
    return Grid(
        f"compression_table{TABLE_NUMBERS[percent]}{suffix}",
        f"Table {TABLE_NUMBERS[percent]}. The shortest and the longest {percent}% of outputs",
        ("Model", "Compression"),
        tuple((task_name(task), COLUMNS) for task in tasks),
        tuple(made),
        f"Scores in percent of the {percent}% of outputs with the fewest and the most words "
        "(rounded down to whole outputs, equally long ones in the order of the questions), and "
        "the ratio of the mean lengths of the two groups in words and in the model's tokens. "
        + (f"The paper's numbers stand beside {PAPER_CALIBRATION}." if paper else ""),
    )


def _cells(found: ShortLong | None, paper: tuple[str, str, str]) -> tuple[Cell, ...]:
    if found is None:
        return (*(Cell(paper=text) for text in paper), Cell())
    short, long = found.short["accuracy"], found.long["accuracy"]
    return (
        Cell(_scores(found.short), paper=paper[0], best=short > long),
        Cell(_scores(found.long), paper=paper[1], best=long > short),
        Cell(_ratio(found.word_ratio), paper=paper[2]),
        Cell(_ratio(found.token_ratio)),
    )


def _scores(scores: dict[str, float]) -> str:
    if {"em", "f1"} <= scores.keys():
        return f"({100 * scores['em']:.1f}, {100 * scores['f1']:.1f})"
    return f"{100 * scores['accuracy']:.1f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
