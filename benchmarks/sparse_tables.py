"""The tables of packing, of the sparse linears and of decoding with them."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import device_name, latest_by_machine, markdown, processor_of, read_results


def pack_table(folder: Path) -> str:
    """2:4 packing, unpacking, and pruning with packing."""
    rows = latest_by_machine(read_results(folder, "pack"), "op", "dtype", "R", "C")
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


def throughput_table(folder: Path) -> str:
    """Whole-model decoding, dense and packed."""
    keys = ("model", "layers", "layout", "format", "B")
    rows = latest_by_machine(read_results(folder, "throughput"), *keys)
    header = (
        "device|model|layout|format|B>|torch, dense bf16, tokens/s>|dense bf16>|dense fp32>"
        "|packed, bf16 activations>|packed, fp32>|packed over torch's bf16>"
        "|best packed over best dense>|bytes of the layers>"
    )
    return markdown(header, (_throughput_row(row) for row in rows))


def _throughput_row(row: dict) -> list[str]:
    names = ("torch_bf16", "dense_bf16", "dense_fp32", "packed_bf16", "packed_fp32")
    rates = [row.get(f"{name}_tokens_per_s") for name in names]
    over = row.get("over_torch_bf16")
    return [
        device_name(row),
        f"{row['model']}, {row['layers']} layers",
        row["layout"],
        row["format"],
        str(row["B"]),
        *("" if rate is None else f"{rate:,.1f}" for rate in rates),
        "" if over is None else f"{over:.2f}x",
        f"{row['speedup']:.2f}x",
        f"{row['packed_bytes'] / row['dense_bytes']:.2f}x",
    ]


def linear_table(folder: Path) -> str:
    """Linears with packed weights beside dense ones."""
    rows = latest_by_machine(read_results(folder, "linear"), "op", "impl", "R", "C", "T")
    place = ("R", "op", "impl", "T")
    rows.sort(key=lambda r: (device_name(r), r["R"] * r["C"], *(r[name] for name in place)))
    header = (
        "device|op|implementation|R x C|T>|ours ms>|dense bf16 ms>|dense float32 ms>|speed-up>"
        "|over dense bf16>|roof>|GB/s>|of readable>"
    )
    return markdown(header, (_linear_row(row) for row in rows))


def _over_bfloat16(row: dict) -> list[str]:
    """The ratio to dense bf16, and what it would be at the readable bandwidth."""
    if row["dense_bfloat16_ms"] is None:
        return ["", ""]
    ratio = row["dense_bfloat16_ms"] / row["time_ms"]
    return [f"{ratio:.2f}x", f"{ratio / row['of_readable']:.2f}x"]


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
        *_over_bfloat16(row),
        f"{row['gbps']:.1f}",
        f"{row['of_readable']:.0%}",
    ]


FEW = (1, 2, 4, 16)
LINEARS = {
    "linear_2to4": "2:4",
    "linear_2to4_fp8": "2:4 in fp8",
    "linear_bitmap": "bitmap, 50% zeros",
    "linear_dense": "dense bf16, `linear_dense`",
}


def linear_short_table(folder: Path) -> str:
    """Linears at a few tokens on a CPU: the least and the most over the fastest dense one."""
    lines = []
    for machine, rows in on_two_threads(folder, "linear", "op", "impl", "R", "C", "T").items():
        for op, name in LINEARS.items():
            ratios = [[r["speedup"] for r in rows if (r["op"], r["T"]) == (op, t)] for t in FEW]
            if any(ratios):
                cells = (f"{min(few):.1f}x to {max(few):.1f}x" if few else "" for few in ratios)
                lines.append([machine, name, *cells])
    return markdown("CPU, 2 threads||1 token>|2 tokens>|4 tokens>|16 tokens>", lines)


def throughput_short_table(folder: Path) -> str:
    """Decoding on a CPU with every layer packed, over the same model left to torch in bf16."""
    keys = ("model", "layers", "layout", "format", "B")
    by_machine = {
        machine: {tuple(r[key] for key in keys): r for r in rows if r["layout"] == "all"}
        for machine, rows in on_two_threads(folder, "throughput", *keys).items()
    }
    batches = sorted({key[-1] for found in by_machine.values() for key in found})
    lines = []
    for machine, found in by_machine.items():
        for key in dict.fromkeys(key[:-1] for key in found):
            rows = (found.get((*key, batch)) for batch in batches)
            cells = ("" if row is None else f"{row['over_torch_bf16']:.1f}x" for row in rows)
            lines.append([machine, f"{key[0]}, {key[1]} layers", key[3], *cells])
    head = "CPU, 2 threads|model|format|"
    return markdown(head + "|".join(f"batch {b}>" for b in batches), lines)


def on_two_threads(folder: Path, name: str, *keys: str) -> dict[str, list[dict]]:
    """The latest rows of CPUs with two threads, by processor."""
    rows = read_results(folder, name)
    rows = [r for r in rows if r["device"] == "cpu" and r["threads"] == 2]
    found: dict[str, list[dict]] = {}
    for row in latest_by_machine(rows, *keys):
        found.setdefault(processor_of(row), []).append(row)
    return found


SPARSE_TABLES: dict[str, Callable[[Path], str]] = {
    "pack": pack_table,
    "linear": linear_table,
    "linear_short": linear_short_table,
    "throughput": throughput_table,
    "throughput_short": throughput_short_table,
}
