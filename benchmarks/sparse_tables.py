"""The tables of packing and of the sparse linears."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import device_name, latest, markdown, read_results


def linear_table(folder: Path) -> str:
    """Linears with packed weights beside dense ones."""
    keys = ("device", "gpu", "op", "impl", "R", "C", "T", "threads")
    rows = latest(read_results(folder, "linear"), *keys)
    rows.sort(key=lambda row: (row["R"] * row["C"], row["R"], row["op"], row["impl"], row["T"]))
    header = (
        "device|op|implementation|R x C|T>|ours ms>|dense bf16 ms>|dense float32 ms>|speed-up>"
        "|GB/s>|of readable>"
    )
    return markdown(header, (_linear_row(row) for row in rows))


def _linear_row(row: dict) -> list[str]:
    dense = (row["dense_bfloat16_ms"], row["dense_float32_ms"])
    return [
        device_name(row),
        f"`{row['op']}`",
        row["impl"],
        f"{row['R']} x {row['C']}",
        str(row["T"]),
        f"{row['time_ms']:.2f}",
        *("" if time is None else f"{time:.2f}" for time in dense),
        f"{row['speedup']:.2f}x",
        f"{row['gbps']:.1f}",
        f"{row['of_readable']:.0%}",
    ]


SPARSE_TABLES: dict[str, Callable[[Path], str]] = {"linear": linear_table}
