"""The tables of packing, of the sparse linears and of decoding with them."""

from collections.abc import Callable
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


def throughput_table(folder: Path) -> str:
    """Whole-model decoding, dense and packed."""
    keys = ("device", "threads", "model", "layers", "layout", "format", "B")
    rows = latest(read_results(folder, "throughput"), *keys)
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
    keys = ("device", "gpu", "op", "impl", "R", "C", "T", "threads")
    rows = latest(read_results(folder, "linear"), *keys)
    rows.sort(key=lambda row: (row["R"] * row["C"], row["R"], row["op"], row["impl"], row["T"]))
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


FEW = (1, 2, 4)
LINEARS = {
    "linear_2to4": "2:4",
    "linear_2to4_fp8": "2:4 in fp8",
    "linear_bitmap": "bitmap, 50% zeros",
    "linear_dense": "dense bf16, `linear_dense`",
}


def linear_short_table(folder: Path) -> str:
    """Linears at a few tokens on a CPU: the least and the most over the fastest dense one."""
    rows = latest(on_two_threads(folder, "linear"), "op", "impl", "R", "C", "T")
    lines = []
    for op, name in LINEARS.items():
        ratios = [[r["speedup"] for r in rows if (r["op"], r["T"]) == (op, t)] for t in FEW]
        if any(ratios):
            cells = (f"{min(few):.1f}x to {max(few):.1f}x" if few else "" for few in ratios)
            lines.append([name, *cells])
    return markdown("|1 token>|2 tokens>|4 tokens>", lines)


def throughput_short_table(folder: Path) -> str:
    """Decoding on a CPU with every layer packed, over the same model left to torch in bf16."""
    keys = ("model", "layers", "format", "B")
    rows = [r for r in on_two_threads(folder, "throughput") if r["layout"] == "all"]
    found = {tuple(r[key] for key in keys): r["over_torch_bf16"] for r in rows}
    batches = sorted({batch for *_, batch in found})
    lines = []
    for model, layers, format in dict.fromkeys(key[:3] for key in found):
        ratios = (found.get((model, layers, format, batch)) for batch in batches)
        cells = ("" if ratio is None else f"{ratio:.1f}x" for ratio in ratios)
        lines.append([f"{model}, {layers} layers", format, *cells])
    return markdown("model|format|" + "|".join(f"batch {b}>" for b in batches), lines)


def on_two_threads(folder: Path, name: str) -> list[dict]:
    """The rows of a CPU with two threads."""
    rows = read_results(folder, name)
    return [r for r in rows if r["device"] == "cpu" and r["threads"] == 2]


SPARSE_TABLES: dict[str, Callable[[Path], str]] = {
    "pack": pack_table,
    "linear": linear_table,
    "linear_short": linear_short_table,
    "throughput": throughput_table,
    "throughput_short": throughput_short_table,
}
