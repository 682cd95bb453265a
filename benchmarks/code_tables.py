"""The tables of machine code: what compilers made of the kernels, beside what a model asks for."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import latest, markdown, read_results


def machine_code_table(folder: Path) -> str:
    """Registers, spills and shared memory of the CUDA linears in bf16."""
    rows = latest(
        read_results(folder, "machine_code"), "kernel", "arch", "dtype", "tokens", "warps"
    )
    chosen = [r for r in rows if r["dtype"] == "bfloat16" and r["planned_for"] is not None]
    header = (
        "kernel|for|tokens>|warps>|registers>|spills, bytes>|stages>|shared, bytes>|blocks an SM>"
        "|of W under way an SM, bytes>|latency hidden, us>"
    )
    return markdown(header, (_machine_code_row(row) for row in chosen))


def _machine_code_row(row: dict) -> list[str]:
    numbers = ("registers", "stack", "stages", "shared", "blocks_per_sm", "weight_bytes_under_way")
    return [
        f"`{row['kernel']}`",
        f"{row['planned_for']}, {row['arch']}",
        f"<= {row['tokens']}",
        str(row["warps"]),
        *(f"{row[name]:,}" for name in numbers),
        f"{row['latency_hidden_us']:.1f}",
    ]


def static_model_table(folder: Path) -> str:
    """The Triton kernels' machine code on an H200 beside what their floors ask for."""
    rows = latest(read_results(folder, "static_model"), "kernel", "case", "arch")
    header = (
        "kernel|case|bound by|registers>|shared, bytes>|warps an SM>|tensor core>"
        "|16-byte loads>|narrower>|under way an SM, bytes>|hidden, us>|misses"
    )
    return markdown(header, (_static_model_row(row) for row in rows if row["arch"] == "sm_90"))


def _static_model_row(row: dict) -> list[str]:
    numbers = (row["registers"], row["shared"], row["blocks_per_sm"] * row["warps"])
    counts = (row["tensor_core"], row["wide_loads"], row["narrow_loads"])
    under_way, hidden = row.get("under_way"), row.get("hidden_us")
    return [
        f"`{row['kernel']}`",
        row["case"],
        row["bound"],
        *(f"{number:,}" for number in (*numbers, *counts)),
        "" if under_way is None else f"{under_way:,}",
        "" if hidden is None else f"{hidden:.1f}",
        ", ".join(row["misses"]) or "none",
    ]


def streamed_table(folder: Path) -> str:
    """The CUDA kernels of packing and masks on Hopper; the widest of a kernel's variants."""
    rows = latest(read_results(folder, "machine_code_streamed"), "name", "arch")
    widest: dict[str, dict] = {}
    for row in rows:
        before = widest.get(row["kernel"])
        if row["arch"] == "sm_90a" and (before is None or row["registers"] > before["registers"]):
            widest[row["kernel"]] = row
    header = (
        "kernel|registers>|stack, bytes>|warps an SM>|16-byte loads>|16-byte stores>"
        "|under way an SM, bytes>|asked for>"
    )
    names = ("registers", "stack", "warps_that_fit", "global_16_bytes", "stored_16_bytes")
    names += ("under_way", "under_way_wanted")
    return markdown(
        header,
        ([f"`{kernel}`", *(f"{row[n]:,}" for n in names)] for kernel, row in widest.items()),
    )


CODE_TABLES: dict[str, Callable[[Path], str]] = {
    "machine_code": machine_code_table,
    "static_model": static_model_table,
    "streamed": streamed_table,
}
