"""Tables 3 to 5 of the RAC paper: on and off policy, 2:4 in the MLPs, decode budgets."""

from collections.abc import Sequence

from rac.report.entries import Entry
from rac.report.grid import Cell, Grid, Row
from rac.report.paper.pruning import (
    BUDGETS,
    DENSE_THROUGHPUT,
    ON_AND_OFF_POLICY,
    SCOPES,
    STRUCTURED,
)
from rac.report.runs import Section
from rac.report.tables import (
    PAPER_SOLVER,
    accuracy_cell,
    format_minutes,
    format_pattern,
    paper_model,
    reported,
)


def ablations(section: Section, suffix: str = "") -> list[Grid]:
    """The tables of which the section has a number, or whose model and task it has."""
    made = (table3(section, suffix), table4(section, suffix), table5(section, suffix))
    return [grid for grid in made if grid is not None]


def table3(section: Section, suffix: str = "") -> Grid | None:
    """On-policy (rac) against off-policy traces, by sparsity."""
    paper = ON_AND_OFF_POLICY if paper_model(section, "math500") == "7B" else {}
    policies = ("rac", "off-policy")
    entries = [
        e
        for e in section.pruned
        if e.result.calibration in policies and (e.result.solver or "") == PAPER_SOLVER
    ]
    if not paper and not any(e.result.calibration == "off-policy" for e in entries):
        return None
    labels = [label for label, _ in paper] + [format_pattern(e.result.pattern) for e in entries]
    rows = []
    for label in sorted(set(labels), key=lambda x: (":" in x, float(x.rstrip("%").split(":")[0]))):
        cells = []
        for policy in policies:
            entry = _first(entries, label, policy)
            beside = reported(paper.get((label, policy)))
            cells.append(accuracy_cell(entry, paper=beside) if entry else Cell(paper=beside))
        rows.append(Row((label,), tuple(cells)))
    return Grid(
        f"table3{suffix}",
        "Table 3. Traces of the model itself and of another",
        ("Sparsity",),
        (("Accuracy ± standard error", ("on-policy", "off-policy")),),
        tuple(rows),
        "The paper's off-policy traces are the 14B model's." if paper else "",
    )


def _first(entries: Sequence[Entry], label: str, calibration: str) -> Entry | None:
    return next(
        (
            e
            for e in entries
            if (format_pattern(e.result.pattern), e.result.calibration) == (label, calibration)
        ),
        None,
    )


def table4(section: Section, suffix: str = "") -> Grid | None:
    """2:4 in the MLPs of some of the layers: accuracy and tokens a second of the evaluation."""
    paper = STRUCTURED if paper_model(section, "math500") == "14B" else {}
    ours: dict[tuple[str, str], Entry] = {}
    for e in section.pruned:
        if e.result.pattern == "2:4" and e.scope in SCOPES:
            calibration = e.result.calibration
            name = {"rac": "RAC", "prompt": "Prompt"}.get(calibration, calibration)
            ours.setdefault((name + "+FP8" * e.fp8, e.scope), e)
    if not paper and not ours:
        return None
    rows = []
    for name in dict.fromkeys(name for name, _ in (*ours, *paper)):
        cells: list[Cell] = []
        for scope in SCOPES:
            entry, (accuracy, speed) = ours.get((name, scope)), paper.get((name, scope), (None, ""))
            beside = reported(accuracy)
            cells.append(accuracy_cell(entry, paper=beside) if entry else Cell(paper=beside))
            text = f"{entry.result.tokens_per_second:,.0f}" if entry else ""
            cells.append(Cell(text, paper=speed))
        rows.append(Row((name,), tuple(cells)))
    dense = section.dense
    speed = f"{dense.result.tokens_per_second:,.0f}" if dense else ""
    beside = DENSE_THROUGHPUT if paper else ""
    first = Row(("dense",), (Cell(speed, paper=beside, span=2 * len(SCOPES)),), dense=True)
    return Grid(
        f"table4{suffix}",
        "Table 4. 2:4 sparsity of the MLP layers: accuracy and tokens a second",
        ("",),
        tuple((scope, ("Acc", "Thr")) for scope in SCOPES.values()),
        (first, *rows),
        "Throughput is that of the evaluation, on the machine that ran it.",
    )


def table5(section: Section, suffix: str = "") -> Grid | None:
    """Accuracy had generation stopped earlier, from one set of responses."""
    paper = BUDGETS if paper_model(section, "math500") == "7B" else {}
    entries = [e for e in section.entries if e.budgets]
    if not paper and not entries:
        return None
    full = int(section.settings.get("max_new_tokens") or 0)
    limits = {limit for e in entries for limit in (*e.budgets, full)} | {key[2] for key in paper}
    found = {(format_pattern(e.result.pattern), e.result.calibration): e for e in entries}
    rows = []
    for key in dict.fromkeys((*found, *(k[:2] for k in paper))):
        cells: list[Cell] = []
        for limit in sorted(limits, reverse=True):
            accuracy, minutes = paper.get((*key, limit), ("", ""))
            cells += _at_limit(found.get(key), limit, full, accuracy, minutes)
        label = "dense" if key[0] == "dense" else " ".join(key)
        rows.append(Row((label,), tuple(cells), dense=key[0] == "dense"))
    return Grid(
        f"table5{suffix}",
        "Table 5. Accuracy and minutes by the limit of decoded tokens",
        ("Model",),
        tuple((f"Max tokens = {n}", ("Acc.", "Time")) for n in sorted(limits, reverse=True)),
        tuple(rows),
        "Ours are one set of responses cut at each limit, so only the largest has a time.",
    )


def _at_limit(
    entry: Entry | None, limit: int, full: int, accuracy: str, minutes: str
) -> tuple[Cell, Cell]:
    if entry is not None and limit == full:
        time = Cell(format_minutes(entry.result.minutes), paper=minutes)
        return accuracy_cell(entry, paper=accuracy), time
    cut = entry.budgets.get(limit) if entry else None
    if cut is None:
        return Cell(paper=accuracy), Cell(paper=minutes)
    return Cell(f"{cut.accuracy:.3f}", f"{cut.stderr:.3f}", accuracy), Cell(paper=minutes)
