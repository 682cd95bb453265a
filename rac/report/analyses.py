"""What is said of the runs beyond the papers' tables: who is better, and who repeats himself."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rac.errors import UserError
from rac.evaluation.compare import Paired, compare
from rac.report.entries import Entry
from rac.report.grid import Cell, Grid, Row
from rac.report.runs import Section
from rac.report.tables import format_pattern

EXAMPLES = 4
EXCERPT = 700

logger = logging.getLogger(__name__)


def paired_table(section: Section, suffix: str = "") -> Grid | None:
    """Each other calibration against rac at the same pattern, and each pruned model against dense.

    None where no two evaluations kept their responses.
    """
    rows = []
    for label, a, b in _pairs(section):
        assert a.evaluation is not None and b.evaluation is not None
        try:
            found = compare(a.evaluation, b.evaluation)
        except UserError as error:
            logger.warning("%s and %s are not compared: %s", a.run, b.run, error)
        else:
            rows.append(Row((label, _name(a), _name(b)), _cells(found)))
    if not rows:
        return None
    columns = ("B − A", "95% interval", "A ahead", "B ahead", "p", "B better")
    return Grid(
        f"paired{suffix}",
        "Pairs on the same problems: is B better than A?",
        ("Sparsity", "A", "B"),
        (("", ("Accuracy A", "Accuracy B", *columns)),),
        tuple(rows),
        "The interval is a paired bootstrap over questions (10,000 resamples). A ahead and B ahead "
        "count the questions that one answers better; p is McNemar's exact two-sided test of the "
        "two counts (with several samples a question, a sign test on the questions' means). "
        "“B better” is the share of bootstrap resamples in which B leads, ties counted half: how "
        "often B would lead on other draws of such questions. Many pairs are tested and p is not "
        "corrected for that.",
    )


def _pairs(section: Section) -> Iterator[tuple[str, Entry, Entry]]:
    """(pattern, A, B) to compare."""
    kept = [e for e in section.pruned if e.evaluation is not None]
    for b in (e for e in kept if e.result.calibration == "rac"):
        for a in kept:
            same = (a.result.pattern, a.result.solver) == (b.result.pattern, b.result.solver)
            if same and a.result.calibration != "rac":
                yield format_pattern(b.result.pattern), a, b
    if section.dense is not None and section.dense.evaluation is not None:
        for b in kept:
            yield format_pattern(b.result.pattern), section.dense, b


def _name(entry: Entry) -> str:
    solver = entry.result.solver
    other = f", {solver}" if solver not in (None, "sparsegpt") else ""
    return entry.result.calibration + other


def _cells(found: Paired) -> tuple[Cell, ...]:
    return (
        Cell(f"{found.a:.3f}"),
        Cell(f"{found.b:.3f}"),
        Cell(_signed(found.difference)),
        Cell(f"{_signed(found.low)} to {_signed(found.high)}"),
        Cell(str(found.only_a)),
        Cell(str(found.only_b)),
        Cell(format_p(found.p_value)),
        Cell(f"{100 * found.b_better:.1f}%"),
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def format_p(p: float) -> str:
    """A p-value with two figures; very small ones as a bound."""
    if p < 1e-4:
        return "< 0.0001"
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


@dataclass(frozen=True)
class Example:
    """One output that ended in a loop: where it is from, the loop, the text before it."""

    where: str
    repeats: str
    before: str
    period: str
    rest: str


def repetition_examples(entries: Sequence[Entry]) -> list[Example]:
    """The longest loop of each of the few entries that repeat themselves most."""
    looping = [e for e in entries if e.repetitions]
    looping.sort(key=lambda e: -(e.repetition_share or 0))
    examples = []
    for entry in looping[:EXAMPLES]:
        response, loop = max(entry.repetitions or [], key=lambda pair: pair[1].repeats)
        text, task = response.text, entry.result.task
        examples.append(
            Example(
                where=f"{_sparse_name(entry)}, question {response.index + 1} of {task}",
                repeats=f"{loop.repeats:.0f} times, from character {loop.start:,} of {len(text):,}",
                before=text[max(0, loop.start - EXCERPT // 4) : loop.start],
                period=_shortened(loop.period),
                rest=_shortened(text[loop.start + len(loop.period) :]),
            )
        )
    return examples


def _sparse_name(entry: Entry) -> str:
    if entry.dense:
        return "dense"
    return f"{format_pattern(entry.result.pattern)} {_name(entry)}"


def _shortened(text: str) -> str:
    return text if len(text) <= EXCERPT else text[:EXCERPT] + " …"
