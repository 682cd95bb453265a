"""The tables of packed weights."""

from pathlib import Path

from benchmarks.rows import device_name, latest, markdown, read_results


def pack_table(folder: Path) -> str:
    """2:4 packing, unpacking, and pruning with packing."""
    keys = ("device", "gpu", "op", "dtype", "R", "C", "threads")
    rows = latest(read_results(folder, "pack"), *keys)
    header = "device|op|dtype|R x C|ours ms>|kernel ms>|torch ms>|speed-up>|separate ms>|of copy>"
    return markdown(header, (_pack_row(row) for row in rows))


def _pack_row(row: dict) -> list[str]:
    separate = row.get("separate_ms")
    return [
        device_name(row),
        f"`{row['op']}`",
        row["dtype"],
        f"{row['R']} x {row['C']}",
        f"{row['time_ms']:.2f}",
        f"{row['kernel_ms']:.2f}",
        f"{row['baseline_ms']:.0f}",
        f"{row['speedup']:.0f}x",
        "" if separate is None else f"{separate:.1f}",
        f"{100 * row['of_copy']:.0f}%",
    ]
