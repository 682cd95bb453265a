"""The page: one HTML file with its style and its images in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rac.report.analyses import Example
from rac.report.entries import Entry, resolve_source
from rac.report.findings import summary
from rac.report.grid import Grid
from rac.report.runs import Section
from rac.report.style import Image
from rac.report.tables import format_minutes, format_pattern

HERE = Path(__file__).parent


@dataclass(frozen=True)
class SectionView:
    """What the template shows of one section."""

    title: str
    settings: str
    summary: str
    notes: tuple[str, ...]
    table: Grid
    others: Sequence[Grid]
    stages: Grid | None
    figure1: Sequence[Image]
    figure2: Image | None
    figure2_missing: str
    layers: Sequence[Image]
    traces: Image | None
    seconds: Image | None
    entries: Sequence[dict[str, Any]]


def view(
    section: Section,
    table: Grid,
    others: Sequence[Grid],
    stages: Grid | None,
    figure1: Sequence[Image],
    figure2: Image | str,
    layers: Sequence[Image],
    traces: Image | None,
    seconds: Image | None,
) -> SectionView:
    """Prepare one section for the template."""
    s = section.settings
    first = section.entries[0]
    source = "embedded" if first.source == resolve_source("embedded") else first.source
    return SectionView(
        title=_title(first),
        settings=(
            f"{first.result.n} problems of task {first.result.task}, temperature "
            f"{s.get('temperature')}, top-p {s.get('top_p')}, at most {s.get('max_new_tokens')} "
            f"new tokens, on {first.result.device}. Source model: {source or 'unnamed'}."
        ),
        summary=summary(section),
        notes=section.notes,
        table=table,
        others=others,
        stages=stages,
        figure1=figure1,
        figure2=figure2 if isinstance(figure2, Image) else None,
        figure2_missing=figure2 if isinstance(figure2, str) else "",
        layers=layers,
        traces=traces,
        seconds=seconds,
        entries=[_details(entry) for entry in section.entries],
    )


def _title(entry: Entry) -> str:
    """Name the source model and the task."""
    source = entry.source
    embedded = source == resolve_source("embedded")
    model = "The embedded reasoner" if embedded else Path(source).name or "Unnamed model"
    task = "its held-out problems" if embedded and entry.result.task == "embedded" else "task "
    return f"{model} on {task}" + ("" if task != "task " else entry.result.task)


def _details(entry: Entry) -> dict[str, Any]:
    """One line of the table of all runs, as text."""
    r, record = entry.result, entry.record
    errors = [x for x in record.layers if x.error is not None] if record else []
    worst = max(errors, key=lambda layer: layer.error or 0.0, default=None)
    return {
        "run": entry.run,
        "pattern": format_pattern(r.pattern),
        "calibration": r.calibration,
        "solver": r.solver or "",
        "sparsity": f"{100 * r.sparsity:.1f}%",
        "tokens": f"{record.tokens:,}" if record else "",
        "accuracy": f"{r.accuracy:.3f}",
        "stderr": f"{r.stderr:.3f}",
        "minutes": format_minutes(r.minutes),
        "speed": f"{r.tokens_per_second:,.0f}",
        "mean": f"{r.output_tokens:,.0f}",
        "median": f"{r.output_tokens_median:,.0f}",
        "p95": f"{r.output_tokens_p95:,.0f}",
        "limit": f"{100 * r.limit_share:.1f}%",
        "unfinished": _percent(r.unfinished_share),
        "repeating": _percent(entry.repetition_share),
        "worst": f"{worst.error:.2f}" if worst else "–",
        "worst_name": worst.name.removeprefix("model.").split(".") if worst else (),
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def render_page(
    sections: Sequence[SectionView], across: Sequence[Grid] = (), examples: Sequence[Example] = ()
) -> str:
    """The whole page as text; it refers to nothing outside itself.

    `across` are the tables over all sections, `examples` outputs that repeat themselves.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        sections=sections,
        across=across,
        examples=examples,
        style=(HERE / "page.css").read_text(),
    )
