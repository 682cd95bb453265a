"""Plots of whole-model decoding: tokens/s dense, and with each layout and format packed.

    python -m benchmarks.throughput_plot [--results benchmarks/results]

Takes the rows of bench_throughput.py, of repeated measurements the last, and writes
throughput_<device>.png beside them: one a device, an axis a model and batch. Every row has timed
the dense contenders anew, so a dense bar is the median of its axis' rows, the line on it goes from
the slowest to the fastest. A packed bar is the faster of bf16 and float32 activations, of those
measured; where there is none, that was not run, and layouts that were never run are left out.
"""

import argparse
import re
import statistics
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from benchmarks.rows import latest_by_machine, machine_of, read_results
from rac.report.style import DENSE, STAGES, subplots, to_png

SAME = ("model", "layers", "layout", "format", "B")
DENSES = {"torch_bf16": "torch, dense bf16", "dense_bf16": "dense bf16", "dense_fp32": "dense fp32"}
GREYS = ("#666666", "#999999", "#CCCCCC")
LAYOUTS = ("first third", "first and last third", "all")
FORMATS = ("2:4", "2:4-fp8", "bitmap")
WIDTH = 0.26  # of a bar; three stand side by side


def measured(folder: Path) -> list[dict]:
    """The last row of everything measured, by device, model and batch."""
    rows = latest_by_machine(read_results(folder, "throughput"), *SAME)
    return sorted(rows, key=lambda row: (machine_of(row), *panel_of(row)))


def panel_of(row: dict) -> tuple[str, int, int]:
    """What an axis is for: model, layers, batch."""
    return row["model"], row["layers"], row["B"]


def dense_rates(rows: list[dict], name: str) -> tuple[float, float, float] | None:
    """Median, lowest and highest tokens/s of a dense contender; None where no row timed it."""
    rates = [rate for row in rows if (rate := row.get(f"{name}_tokens_per_s"))]
    return (statistics.median(rates), min(rates), max(rates)) if rates else None


def packed_rate(rows: list[dict], layout: str, format: str) -> float | None:
    """Tokens/s with a layout packed in a format, in the faster dtype of activations."""
    for row in rows:
        if (row["layout"], row["format"]) == (layout, format):
            rates = (row.get(f"packed_{dtype}_tokens_per_s") for dtype in ("bf16", "fp32"))
            return max(rate for rate in rates if rate)
    return None


def draw(device: str, rows: list[dict]) -> bytes:
    """The plot of one device as PNG."""
    panels = [list(group) for _, group in groupby(rows, key=panel_of)]
    figure, axes = subplots(7.2, 0.9 + 2.1 * len(panels), rows=len(panels))
    layouts = [name for name in LAYOUTS if any(row["layout"] == name for row in rows)]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel, layouts)
    kinds = [text for name, text in DENSES.items() if dense_rates(rows, name)]
    looks = dict(zip((*DENSES.values(), *FORMATS), (*GREYS, *STAGES), strict=False))
    handles = [Patch(color=looks[kind], label=kind) for kind in (*kinds, *FORMATS)]
    place = {"loc": "outside upper center", "ncols": len(handles), "frameon": False}
    figure.legend(handles=handles, title=device, fontsize=8, **place)
    figure.align_ylabels()
    return to_png(figure)


def _draw_panel(axis: Axes, rows: list[dict], layouts: list[str]) -> None:
    """Bars of a model and batch: dense ones, then three formats a layout."""
    for index, name in enumerate(DENSES):
        rates = dense_rates(rows, name)
        if rates:
            middle, low, high = rates
            place = (index - 1) * WIDTH
            _bar(axis, place, middle, GREYS[index], high)
            axis.plot([place] * 2, [low, high], color=DENSE, linewidth=1)
    for group, layout in enumerate(layouts, start=1):
        for index, format in enumerate(FORMATS):
            rate = packed_rate(rows, layout, format)
            if rate:
                _bar(axis, group + (index - 1) * WIDTH, rate, STAGES[index], rate)
    model, layers, batch = panel_of(rows[0])
    axis.set_title(f"{model}, {layers} layers, batch {batch}", loc="left", fontsize=9)
    axis.set_xticks(range(len(layouts) + 1), ["dense", *layouts])
    axis.set_xlim(-0.5, len(layouts) + 0.5)
    axis.set_ylabel("Tokens/s")
    axis.margins(y=0.14)


def _bar(axis: Axes, place: float, rate: float, colour: str, top: float) -> None:
    """One bar with its number above `top`."""
    axis.bar(place, rate, WIDTH * 0.92, color=colour)
    text = f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}"
    axis.annotate(text, (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=8)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(__file__).resolve().parent / "results"
    parser.add_argument("--results", type=Path, default=folder)
    options = parser.parse_args()
    for device, group in groupby(measured(options.results), key=machine_of):
        name = "_".join(re.findall(r"[a-z0-9]+", device.lower()))
        path = options.results / f"throughput_{name}.png"
        path.write_bytes(draw(device, list(group)))
        print(path)


if __name__ == "__main__":
    main()
