"""Run directories in; one page, and every table and figure of it as a file, out."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rac.files import write_atomic, write_json
from rac.report.ablations import ablations
from rac.report.analyses import paired_table, repetition_examples
from rac.report.compression import compression_tables
from rac.report.figures import figure1, layer_figures, trace_figure
from rac.report.grid import Grid, to_csv, to_markdown
from rac.report.lengths import length_tables
from rac.report.page import SectionView, render_page, view
from rac.report.pairs import figure2
from rac.report.reconstruction import token_reconstruction
from rac.report.runs import Section, make_sections, read_entries
from rac.report.stages import seconds_figure, seconds_table
from rac.report.style import Image
from rac.report.tables import table1

__all__ = ["token_reconstruction", "write_report"]

logger = logging.getLogger(__name__)


def write_report(
    runs: Sequence[Path], out: Path, *, device: str = "cpu", reconstruction: bool = True
) -> list[dict[str, Any]]:
    """Write `out/report.html`, `out/results.json`, figures and tables; returns the rows.

    Figures are PNG files beside the page, tables CSV and Markdown files in `out/tables`.

    `runs` are run directories (`eval/*.json`, and `model/rac.json` unless dense). Evaluations that
    cannot be compared (another source model, other problems, other sampling) get sections of their
    own. `reconstruction` loads models onto `device` for Figure 2; its errors are kept in `out`.

    Raises:
        UserError: a run directory is missing or broken; nothing has been written then.
    """
    out = Path(out)
    entries = read_entries(runs)
    sections = make_sections(entries)
    if len(sections) > 1:
        logger.warning("the runs form %d groups that cannot be compared", len(sections))
    rows = [entry.row() for entry in entries]
    views, images, tables = [], [], []
    for index, section in enumerate(sections, start=1):
        suffix = "" if index == 1 else f"_{index}"
        shown, made = _illustrate(section, out, device, reconstruction, suffix)
        views.append(shown)
        images += made
        tables += [shown.table, *shown.others, *([shown.stages] if shown.stages else [])]
    across = [*compression_tables(entries), *length_tables(entries)]
    page = render_page(views, across, repetition_examples(entries))
    for image in images:
        with write_atomic(out / image.name) as temporary:
            temporary.write_bytes(image.png)
    _write_tables([*tables, *across], out / "tables")
    write_json(out / "results.json", rows)
    with write_atomic(out / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return rows


def _write_tables(grids: Sequence[Grid], folder: Path) -> None:
    for grid in grids:
        for suffix, text in (("csv", to_csv(grid)), ("md", to_markdown(grid))):
            with write_atomic(folder / f"{grid.name}.{suffix}") as temporary:
                temporary.write_text(text, encoding="utf-8")


def _illustrate(
    section: Section, out: Path, device: str, reconstruction: bool, suffix: str
) -> tuple[SectionView, list[Image]]:
    """Every figure of one section, and its view."""
    if reconstruction:
        heatmap = figure2(section, out, device, suffix)
    else:
        heatmap = "It was not asked for in this report."
    accuracy_and_minutes = figure1(section, suffix) if section.pruned else []
    layers = layer_figures(section, suffix)
    traces, seconds = trace_figure(section, suffix), seconds_figure(section, suffix)
    paired = paired_table(section, suffix)
    others = [*ablations(section, suffix), *([paired] if paired else [])]
    table = table1(section, suffix)
    stages = seconds_table(section, suffix)
    figures = (accuracy_and_minutes, heatmap, layers, traces, seconds)
    shown = view(section, table, others, stages, *figures)
    made = [*accuracy_and_minutes, heatmap, *layers, traces, seconds]
    return shown, [image for image in made if isinstance(image, Image)]
