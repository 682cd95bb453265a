"""Seconds of the stages of every run: a figure and a table."""

import numpy as np

from rac.report.entries import Entry
from rac.report.grid import Cell, Grid, Row
from rac.report.runs import Section
from rac.report.style import STAGES, Image, legend_above, subplots, to_png
from rac.report.tables import format_pattern


def timed(section: Section) -> list[Entry]:
    """The runs that say how long their stages took."""
    return [e for e in section.pruned if e.record and e.record.seconds]


def seconds_table(section: Section, suffix: str = "") -> Grid | None:
    """Seconds of each stage, a row a run; None where no run has any."""
    entries = timed(section)
    if not entries:
        return None
    stages = stage_order([list(e.record.seconds) for e in entries])
    rows = []
    for entry in entries:
        seconds = entry.record.seconds
        cells = [Cell(f"{seconds[stage]:.1f}" if stage in seconds else "") for stage in stages]
        total = Cell(f"{sum(seconds.values()):.1f}")
        labels = (format_pattern(entry.result.pattern), entry.result.calibration, entry.run)
        rows.append(Row(labels, (*cells, total)))
    return Grid(
        f"seconds{suffix}",
        "Seconds of each stage",
        ("Sparsity", "Calibration", "Run"),
        (("Seconds", (*stages, "total")),),
        tuple(rows),
        "A stage without a number was not run: a run that reused another's Hessians shows pruning "
        "alone.",
    )


def seconds_figure(section: Section, suffix: str = "") -> Image | None:
    """Seconds of calibration and pruning, a bar a run, a colour a stage."""
    entries = timed(section)
    if not entries:
        return None
    stages = stage_order([list(e.record.seconds) for e in entries])
    figure, (axis,) = subplots(5.4, 1.3 + 0.27 * len(entries))
    names = [f"{format_pattern(e.result.pattern)} {e.result.calibration}" for e in entries]
    places = np.arange(len(entries))
    left = np.zeros(len(entries))
    for index, stage in enumerate(stages):
        widths = np.array([e.record.seconds.get(stage, 0.0) for e in entries])
        axis.barh(places, widths, left=left, label=stage, color=STAGES[index % len(STAGES)])
        left += widths
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.grid(visible=True, axis="x")
    axis.set_xlabel("Seconds")
    legend_above(axis, columns=2)
    return Image(
        f"seconds{suffix}.png",
        to_png(figure),
        "Seconds of each stage of each run",
        "Wall time of each stage. A run that reused another's Hessians shows pruning alone.",
    )


def stage_order(runs: list[list[str]]) -> list[str]:
    """All stages, those that are further from the end of their run first."""
    distances: dict[str, int] = {}
    for stages in runs:
        for index, stage in enumerate(stages):
            distances[stage] = max(distances.get(stage, 0), len(stages) - index)
    return sorted(distances, key=lambda stage: -distances[stage])
