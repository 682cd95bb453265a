"""Tables 2 to 5 of "When Reasoning Meets Compression", in its layout, and the collapse points."""

from collections.abc import Sequence
from pathlib import Path

from rac.evaluation.collapse import Collapse, collapse_point
from rac.report.entries import Entry, resolve_source
from rac.report.grid import Cell, Grid, Row
from rac.report.paper.compression import (
    AVERAGED,
    OVERALL,
    SPARSITY_LEVELS,
    TASKS,
    Overall,
    family_of,
)
from rac.report.tables import PAPER_SOLVER, format_pattern

PAPER_CALIBRATION = "text"  # the paper runs SparseGPT as it comes, and that calibrates on C4

Key = tuple[str, ...]


def compression_tables(entries: Sequence[Entry]) -> list[Grid]:
    """The tables that the entries have a number for, or whose model and tasks they have."""
    tables = (overall, sparsity_levels, collapse_points)
    made = [table(group, suffix) for suffix, group in split(entries).items() for table in tables]
    return [grid for grid in made if grid is not None]


def split(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Entries of the paper's models or tasks (""), and all others, by the suffix of their files."""
    groups: dict[str, list[Entry]] = {"": [], "_others": []}
    for e in entries:
        theirs = e.result.task in TASKS or family_of(e.source) is not None
        groups["" if theirs else "_others"].append(e)
    if not groups[""]:
        return {"": groups["_others"]}
    return {suffix: group for suffix, group in groups.items() if group}


def model_of(entry: Entry) -> tuple[str, str]:
    """Name and parameters of the dense model, the paper's where it has it."""
    family = family_of(entry.source)
    if family:
        return family[0], family[1]
    embedded = entry.source == resolve_source("embedded")
    return "embedded" if embedded else Path(entry.source).name or "unnamed", ""


def tasks_of(entries: Sequence[Entry], papers: Sequence[str] = tuple(TASKS)) -> tuple[str, ...]:
    """The paper's tasks if the entries have one of them or of its models; then all others."""
    found = list(dict.fromkeys(e.result.task for e in entries))
    ours = any(task in papers for task in found) or any(family_of(e.source) for e in entries)
    return (*(papers if ours else ()), *(task for task in found if task not in papers))


def task_name(task: str) -> str:
    """The task as the paper calls it."""
    return TASKS.get(task, task)


def by_calibration(entry: Entry) -> str:
    """The calibration, with the solver where it is not SparseGPT."""
    solver = entry.result.solver
    other = f", {solver}" if solver not in (None, PAPER_SOLVER) else ""
    return entry.result.calibration + other


def score_text(entry: Entry) -> str:
    """Accuracy in percent; MuSiQue as (EM, F1)."""
    scores = entry.scores
    if {"em", "f1"} <= scores.keys():
        return f"({100 * scores['em']:.1f}, {100 * scores['f1']:.2f})"
    return f"{100 * entry.result.accuracy:.1f}"


def _columns(tasks: Sequence[str]) -> tuple[str, ...]:
    """Tasks, with the average of the paper's three after them."""
    if not set(AVERAGED) <= set(tasks):
        return tuple(tasks)
    return (*AVERAGED, "average", *(task for task in tasks if task not in AVERAGED))


def _headings(columns: Sequence[str]) -> tuple[str, ...]:
    named = {"average": "Avg", "musique": "MuSiQue (EM, F1)"}
    return tuple(named.get(column) or task_name(column) for column in columns)


def _cells(
    found: dict[str, Entry], columns: Sequence[str], paper: Overall | None
) -> tuple[Cell, ...]:
    texts = {task: score_text(entry) for task, entry in found.items()}
    if set(AVERAGED) <= found.keys():
        accuracies = [found[task].result.accuracy for task in AVERAGED]
        texts["average"] = f"{100 * sum(accuracies) / len(accuracies):.1f}"
    beside = paper.texts if paper else {}
    return tuple(Cell(texts.get(c, ""), paper=beside.get(c, "")) for c in columns)


def _gathered(entries: Sequence[Entry]) -> dict[Key, dict[str, Entry]]:
    """(model, parameters, pattern, calibration) -> task -> its first entry."""
    rows: dict[Key, dict[str, Entry]] = {}
    for e in entries:
        key = (*model_of(e), format_pattern(e.result.pattern), by_calibration(e))
        rows.setdefault(key, {}).setdefault(e.result.task, e)
    return rows


def overall(entries: Sequence[Entry], suffix: str = "") -> Grid | None:
    """Table 2: every model and way of compression, a row each; None for a single unknown model."""
    models = dict.fromkeys(model_of(e)[0] for e in entries)
    if len(models) < 2 and not any(family_of(e.source) for e in entries):
        return None
    columns = _columns(tasks_of(entries))
    rows = {
        (row.model, row.parameters, row.compression): (row, {})
        for row in OVERALL
        if row.model in models
    }
    for (model, parameters, pattern, calibration), found in _gathered(entries).items():
        first = next(iter(found.values()))
        label = compression_label(first, pattern, calibration)
        rows.setdefault((model, parameters, label), (None, {}))[1].update(found)
    return Grid(
        f"compression_table2{suffix}",
        "Table 2. Overall results",
        ("Model", "#Param", "Compression"),
        (("Accuracy (%)", _headings(columns)),),
        tuple(
            Row(labels, _cells(found, columns, row))
            for labels, (row, found) in sorted(rows.items(), key=lambda item: item[0][0])
        ),
    )


def compression_label(entry: Entry, pattern: str, calibration: str) -> str:
    """The paper's words for how a model was compressed; and the calibration if it is another."""
    family = family_of(entry.source)
    start = family[2] if family else ""
    if pattern == "dense":
        return start or "-"
    own = calibration == PAPER_CALIBRATION and bool(family)
    sparse = f"{pattern} sparse" + ("" if own else f" ({calibration})")
    return f"{start} & {sparse}" if start not in ("", "-") else sparse


def sparsity_levels(entries: Sequence[Entry], suffix: str = "") -> Grid | None:
    """Table 3: a row a sparsity and calibration; None without a pruned model."""
    if all(e.dense for e in entries):
        return None
    columns = _columns(tasks_of(entries))
    models = dict.fromkeys(model_of(e)[0] for e in entries)
    rows: dict[Key, tuple[Overall | None, dict[str, Entry]]] = {}
    for row in SPARSITY_LEVELS:
        if row.model in models:
            dense = row.compression == "0%"
            place = ("dense", "dense") if dense else (row.compression, PAPER_CALIBRATION)
            rows[row.model, row.parameters, *place] = (row, {})
    for key, found in _gathered(entries).items():
        rows.setdefault(key, (None, {}))[1].update(found)
    return Grid(
        f"compression_table3{suffix}",
        "Table 3. Sparsity levels",
        ("Model", "#Param", "Sparsity", "Calibration"),
        (("Accuracy (%)", _headings(columns)),),
        tuple(
            Row(labels, _cells(found, columns, row), dense=labels[2] == "dense")
            for labels, (row, found) in sorted(rows.items(), key=_order)
        ),
        "The paper does not say what it calibrates on; its numbers stand beside text."
        if any(row for row, _ in rows.values())
        else "",
    )


def _order(item: tuple[Key, object]) -> tuple:
    model, _, pattern, calibration = item[0]
    known = ("dense", "text", "prompt", "rac", "off-policy")
    rank = known.index(calibration) if calibration in known else len(known)
    size = float(pattern.rstrip("%")) if "%" in pattern else 0.0
    return model, pattern != "dense", ":" in pattern, size, rank, calibration


def collapse_points(entries: Sequence[Entry], suffix: str = "") -> Grid | None:
    """Between which sparsities the score falls below half of the dense model's.

    None unless a calibration was pruned to at least two sparsities.
    """
    rows: dict[tuple[str, str], dict[str, dict[float, float]]] = {}
    dense: dict[tuple[str, str], float] = {}
    for e in entries:
        score = e.scores.get("em", e.result.accuracy)
        if e.dense:
            dense.setdefault((model_of(e)[0], e.result.task), score)
        elif not e.pattern.structured:
            place = rows.setdefault((model_of(e)[0], by_calibration(e)), {})
            place.setdefault(e.result.task, {}).setdefault(e.pattern.sparsity, score)
    rows = {k: v for k, v in rows.items() if any(len(levels) > 1 for levels in v.values())}
    if not rows:
        return None
    tasks = tasks_of(entries)
    made = []
    for (model, calibration), found in rows.items():
        cells = []
        for task in tasks:
            levels = found.get(task, {})
            if levels and (model, task) in dense:
                levels = levels | {0.0: dense[model, task]}
            beside = _paper_collapse(model, task) if calibration == PAPER_CALIBRATION else None
            point = collapse_point(levels)
            cells.append(Cell(str(point) if point else "", paper=str(beside) if beside else ""))
        made.append(Row((model, calibration), tuple(cells)))
    return Grid(
        f"collapse{suffix}",
        "Collapse point",
        ("Model", "Calibration"),
        (("Sparsity", tuple(map(task_name, tasks))),),
        tuple(made),
        "Between which two measured sparsities the score falls below half of the dense model's "
        "(MuSiQue: EM).",
    )


def _paper_collapse(model: str, task: str) -> Collapse | None:
    levels = {
        r.sparsity: r.scores[task][0]
        for r in SPARSITY_LEVELS
        if r.model == model and task in r.texts
    }
    return collapse_point(levels) if levels else None
