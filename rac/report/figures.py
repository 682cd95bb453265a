"""Figure 1, the error and sparsity of every layer, and trace lengths."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rac.report.entries import Entry
from rac.report.runs import Section
from rac.report.style import (
    DENSE,
    Image,
    colour,
    layer_ticks,
    legend_above,
    marker,
    subplots,
    to_png,
)
from rac.report.tables import calibrations_of, format_pattern

Value = Callable[[Entry], float]
LINE_STYLES = ("-", "--", ":", "-.")


def figure1(section: Section, suffix: str = "") -> list[Image]:
    """Accuracy and minutes against sparsity; n:m patterns stand apart on the right."""
    n = section.entries[0].result.n
    accuracy = _against_sparsity(
        section, "Accuracy", lambda e: e.result.accuracy, lambda e: e.result.stderr
    )
    minutes = _against_sparsity(section, "Evaluation time (minutes)", lambda e: e.result.minutes)
    return [
        Image(
            f"figure1_accuracy{suffix}.png",
            accuracy,
            "Accuracy against sparsity, a line a calibration",
            f"Accuracy on {n} problems; bars are ± one standard error.",
        ),
        Image(
            f"figure1_minutes{suffix}.png",
            minutes,
            "Evaluation minutes against sparsity, a line a calibration",
            "Wall time of the same evaluations.",
        ),
    ]


def _against_sparsity(
    section: Section, label: str, value: Value, error: Value | None = None
) -> bytes:
    figure, (axis,) = subplots(5.4, 3.7)
    positions, separator = _positions(section)
    series = sorted({e.series for e in section.pruned}, key=lambda s: (s[1], _rank(section, s)))
    solvers = sorted({solver for _, solver in series})
    for index, (calibration, solver) in enumerate(series):
        shift = 0.012 * (index - (len(series) - 1) / 2)
        entries = [e for e in section.pruned if e.series == (calibration, solver)]
        name = calibration if len(solvers) == 1 else f"{calibration}, {solver}"
        style = LINE_STYLES[solvers.index(solver) % len(LINE_STYLES)]
        _draw_series(axis, entries, positions, shift, value, error, calibration, name, style)
    if section.dense is not None:
        axis.axhline(
            value(section.dense), color=DENSE, linestyle=(0, (4, 3)), label="dense", lw=1.3
        )
    if separator is not None:
        axis.axvline(separator, color="#BBBBBB", linewidth=0.8)
    ticks = sorted((x, format_pattern(name)) for name, x in positions.items())
    axis.set_xticks([x for x, _ in ticks], [name for _, name in ticks])
    axis.set_xlabel("Sparsity")
    axis.set_ylabel(label)
    top = 1.03 if error else 1.06 * max(value(e) for e in section.entries)
    axis.set_ylim(-0.03 * top, top)  # room for markers at zero
    legend_above(axis, columns=5)
    return to_png(figure)


def _rank(section: Section, series: tuple[str, str]) -> int:
    return calibrations_of(section).index(series[0])


def _positions(section: Section) -> tuple[dict[str, float], float | None]:
    """The x of each pattern: its sparsity, or past the right end for n:m; and where n:m begin."""
    patterns = {e.result.pattern: e.pattern for e in section.pruned}
    places = {name: p.sparsity for name, p in patterns.items() if not p.structured}
    if not places and not any(p.structured for p in patterns.values()):
        return {}, None
    right = max(places.values(), default=0.0)
    separator = right + 0.06 if places else None
    for name in sorted(name for name, p in patterns.items() if p.structured):
        right += 0.12
        places[name] = right
    return places, separator if len(places) > 0 and right > (separator or 0) else None


def _draw_series(
    axis: Axes,
    entries: list[Entry],
    positions: dict[str, float],
    shift: float,
    value: Value,
    error: Value | None,
    calibration: str,
    name: str,
    style: str,
) -> None:
    """Draw the line of the unstructured patterns and the lone markers of n:m ones."""
    look = {"color": colour(calibration), "marker": marker(calibration), "capsize": 2.5}
    for structured in (False, True):
        chosen = [e for e in entries if e.pattern.structured == structured]
        if not chosen:
            continue
        x = np.array([positions[e.result.pattern] for e in chosen]) + (shift if structured else 0)
        bars = [error(e) for e in chosen] if error else None
        label = None if structured and len(chosen) < len(entries) else name
        line = "none" if structured else style
        axis.errorbar(
            x, [value(e) for e in chosen], bars, label=label, linestyle=line, elinewidth=1, **look
        )


def layer_figures(section: Section, suffix: str = "") -> list[Image]:
    """Reconstruction error and sparsity of each pruned linear, a figure a pattern."""
    images = []
    for pattern in dict.fromkeys(e.result.pattern for e in section.pruned):
        entries = [e for e in section.pruned if e.result.pattern == pattern and e.record]
        if entries:
            name = f"layers_{pattern.replace(':', '-')}{suffix}.png"
            alt = f"Error and sparsity of each linear at {format_pattern(pattern)}"
            images.append(Image(name, _layers(entries, format_pattern(pattern)), alt))
    return images


def _layers(entries: list[Entry], title: str) -> bytes:
    figure, axes = subplots(5.4, 3.9, rows=2, sharex=True, height_ratios=(3, 1))
    order = max((e.record.layers for e in entries), key=len)
    places = {layer.name: index for index, layer in enumerate(order)}
    size = 4 if len(order) <= 60 else 2
    for entry in entries:
        layers = [layer for layer in entry.record.layers if layer.name in places]
        x = [places[layer.name] for layer in layers]
        name = entry.result.calibration
        look = {"color": colour(name), "marker": marker(name), "markersize": size, "linewidth": 1}
        errors = [np.nan if layer.error is None else layer.error for layer in layers]
        axes[0].plot(x, errors, label=name, **look)
        axes[1].plot(x, [layer.sparsity for layer in layers], **look)
    axes[0].set_title(title, loc="right")
    axes[0].set_ylabel("Relative error")
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylabel("Sparsity")
    axes[1].set_ylim(0, 1)
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[1].set_xlabel("Decoder layer (its linears in network order)")
    layer_ticks(axes[1], [layer.layer for layer in order])
    legend_above(axes[0], columns=4)
    return to_png(figure)


def trace_figure(section: Section, suffix: str = "") -> Image | None:
    """Histogram of the calibration traces' lengths; None when no run decoded traces."""
    found: dict[tuple[int, ...], str] = {}
    for entry in section.pruned:
        traces = entry.record.traces if entry.record else None
        if traces and traces.lengths:
            found.setdefault(tuple(sorted(traces.lengths)), entry.result.calibration)
    if not found:
        return None
    figure, (axis,) = subplots(5.4, 3.2)
    longest = max(max(lengths) for lengths in found)
    bins = np.linspace(0, longest + 1, min(40, longest + 1) + 1)
    for lengths, name in found.items():
        label = f"{name}: {len(lengths)} traces, mean {np.mean(lengths):.0f} tokens"
        axis.hist(lengths, bins, color=colour(name), alpha=0.75, label=label)
    axis.set_xlabel("Output tokens of a trace")
    axis.set_ylabel("Traces")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axis, columns=1)
    return Image(f"traces{suffix}.png", to_png(figure), "Histogram of trace lengths")
