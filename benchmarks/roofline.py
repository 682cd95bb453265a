"""Roofline plots: achieved GFLOP/s against flops per byte, under the machine's ceilings.

    python -m benchmarks.roofline [--results benchmarks/results]

Takes every row of results/*.jsonl that carries flops, bytes, time_ms, matmul_gflops and copy_gbps
(of repeated measurements the last). Roofs are those of bench_ceilings.py where the machine has such
rows, else those that each row measured in its own run. Writes roofline_<device>.png beside them,
one a device; rows with the bandwidth of reading (readable_gbps) in place of a copy's, the linears,
have roofline_linear_<device>.png for themselves. A hollow marker is the row's baseline, at the same
count of flops and bytes: what it does beyond them is its own affair.
"""

import argparse
import math
import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.rows import latest_by_machine, machine_of, read_results
from rac.report.style import DENSE, STAGES, subplots, to_png

NEEDED = ("flops", "bytes", "time_ms", "matmul_gflops")
SAME = ("op", "impl", "config", "dtype", "D", "T", "R", "C", "pattern")
MARKERS = "osD^vP*X"
BASELINE = "#999999"


def measured(folder: Path) -> list[dict]:
    """Rows of all results files that can be placed under a roof, one for each thing measured."""
    rows = [
        row for path in sorted(folder.glob("*.jsonl")) for row in read_results(folder, path.stem)
    ]
    placed = (row for row in rows if all(row.get(name) for name in NEEDED) and bandwidth(row))
    kept = latest_by_machine(placed, *SAME)
    found = ceilings(folder)
    for row in kept:
        product = (machine_of(row), "matmul", row.get("matmul_dtype") or row["dtype"])
        row["matmul_gflops"] = found.get(product, row["matmul_gflops"])
        for name, what in (("copy_gbps", "copy"), ("readable_gbps", "read")):
            if row.get(name):
                row[name] = found.get((machine_of(row), what, None), row[name])
    return kept


def ceilings(folder: Path) -> dict[tuple, float]:
    """(device, what, dtype) -> GB/s or GFLOP/s of the newest row of bench_ceilings.py."""
    return {
        (machine_of(row), row["what"], row.get("dtype")): row.get("gflops") or row.get("gbps")
        for row in read_results(folder, "ceilings")
    }


def bandwidth(row: dict) -> float | None:
    """Of the memory under which a row is placed, GB/s."""
    return row.get("copy_gbps") or row.get("readable_gbps")


def plot_of(row: dict) -> tuple[str, str]:
    """Which plot a row is in: the start of its name, and the device."""
    return "roofline" if row.get("copy_gbps") else "roofline_linear", machine_of(row)


def series_of(row: dict) -> str:
    """What a colour stands for."""
    return f"{row['op'].rstrip('_')}, {row.get('impl') or 'ours'}, {row['dtype']}"


def draw(device: str, rows: list[dict]) -> bytes:
    """One roofline plot as PNG."""
    figure, (axis,) = subplots(7.2, 4.6)
    unit = 1e3 if max(row["matmul_gflops"] for row in rows) > 5e3 else 1.0
    copy = max(bandwidth(row) for row in rows)
    highest = max(row["matmul_gflops"] for row in rows)
    intensities = [row["flops"] / row["bytes"] for row in rows]
    rates = [rate for row in rows for rate in _rates(row, unit) if rate]
    axis.set(xscale="log", yscale="log", title=device)
    axis.set_xlim(min(*intensities, highest / copy) / 4, max(*intensities, highest / copy) * 9)
    axis.set_ylim(min(rates) / 6, highest / unit * 2)
    _draw_roofs(axis, rows, copy, unit)
    for index, (name, group) in enumerate(groupby(sorted(rows, key=series_of), key=series_of)):
        look = {"color": STAGES[index % len(STAGES)], "marker": MARKERS[index % len(MARKERS)]}
        _draw_series(axis, name, list(group), unit, look)
    axis.set_xlabel("Flops per byte of memory traffic")
    axis.set_ylabel(f"Achieved {'TFLOP/s' if unit > 1 else 'GFLOP/s'}")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        ticks.set_minor_formatter(NullFormatter())
    axis.grid(which="major", axis="both")
    axis.plot([], [], "o", mfc="white", mec=BASELINE, label="baseline")
    axis.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=8)
    return to_png(figure)


def _rates(row: dict, unit: float) -> list[float | None]:
    """Achieved rates of ours and of the baseline, None without one."""
    times = (row["time_ms"], row.get("baseline_ms"))
    return [row["flops"] / time / 1e6 / unit if time else None for time in times]


def _draw_roofs(axis: Axes, rows: list[dict], copy: float, unit: float) -> None:
    """The copy bandwidth, and each dtype's highest matrix product rate to the right of it."""
    left, right = axis.get_xlim()
    highest: dict[str, float] = {}
    for row in rows:
        name = row.get("matmul_dtype") or row["dtype"]
        highest[name] = max(highest.get(name, 0.0), row["matmul_gflops"])
    dtypes: dict[float, list[str]] = {}
    for name, rate in highest.items():
        dtypes.setdefault(rate, []).append(name)
    for rate, names in _near(dtypes):
        axis.plot([rate / copy, right], [rate / unit] * 2, color=DENSE, linewidth=1.2)
        label = f"{'/'.join(sorted(set(names)))} matrix product {rate / unit:,.0f}"
        axis.text(right, rate / unit * 1.06, label + " ", ha="right", fontsize=8, color=DENSE)
    ridge = max(dtypes) / copy
    axis.plot([left, ridge], [left * copy / unit, ridge * copy / unit], color=DENSE, linewidth=1.2)
    verb = "copy" if rows[0].get("copy_gbps") else "read"
    place = max(left, axis.get_ylim()[0] * unit / copy) * 1.12
    axis.text(
        place,
        place * copy / unit * 1.08,
        f"{verb} {copy:,.0f} GB/s",
        fontsize=8,
        color=DENSE,
        rotation=math.degrees(math.atan(copy / unit)),
        rotation_mode="anchor",
        transform_rotates_text=True,
    )


def _near(roofs: dict[float, list[str]]) -> Iterable[tuple[float, list[str]]]:
    """Merge rates within 5%: the same ceiling measured in several runs."""
    merged: list[tuple[float, list[str]]] = []
    for rate in sorted(roofs, reverse=True):
        if merged and rate > 0.95 * merged[-1][0]:
            merged[-1][1].extend(roofs[rate])
        else:
            merged.append((rate, list(roofs[rate])))
    return merged


def _draw_series(axis: Axes, name: str, rows: list[dict], unit: float, look: dict) -> None:
    """Our points filled, their baselines hollow, a thin line from one to the other."""
    x = [row["flops"] / row["bytes"] for row in rows]
    rates = [_rates(row, unit) for row in rows]
    ours = [rate for rate, _ in rates]
    axis.plot(x, ours, linestyle="", markersize=6, label=name, zorder=3, **look)
    for place, (rate, base) in zip(x, rates, strict=True):
        if base:
            axis.plot([place] * 2, [base, rate], color=BASELINE, linewidth=0.7, zorder=1)
            axis.plot(place, base, "o", mfc="white", mec=BASELINE, markersize=5, zorder=2)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(__file__).resolve().parent / "results"
    parser.add_argument("--results", type=Path, default=folder)
    options = parser.parse_args()
    rows = sorted(measured(options.results), key=plot_of)
    for (start, device), group in groupby(rows, key=plot_of):
        name = "_".join(re.findall(r"[a-z0-9]+", device.lower()))
        path = options.results / f"{start}_{name}.png"
        path.write_bytes(draw(device, list(group)))
        print(path)


if __name__ == "__main__":
    main()
