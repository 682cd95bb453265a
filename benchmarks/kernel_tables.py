"""The tables of the kernel benchmarks and of decoding."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import device_name, latest_by_machine, markdown, read_results


def hessian_table(folder: Path) -> str:
    """Rank-k updates of H."""
    keys = ("dtype", "D", "T", "impl", "config")
    rows = latest_by_machine(read_results(folder, "hessian"), *keys)
    rows = [row for row in rows if "impl" in row]
    header = (
        "device|x|D>|T>|implementation|ours ms>|H += XᵀX ms>|speed-up>|GFLOP/s>|matrix product>"
    )
    return markdown(header, (_hessian_row(row) for row in rows))


def _hessian_row(row: dict) -> list[str]:
    numbers = [row["time_ms"], row["baseline_ms"]]
    return [
        device_name(row),
        row["dtype"],
        str(row["D"]),
        str(row["T"]),
        row["impl"],
        *(f"{number:.1f}" for number in numbers),
        f"{row['speedup']:.1f}x",
        f"{row['gflops']:.0f}",
        f"{row['matmul_gflops']:.0f}",
    ]


def sparsegpt_table(folder: Path) -> str:
    """Factor and solve of one layer."""
    rows = latest_by_machine(read_results(folder, "sparsegpt"), "R", "C", "pattern")
    header = (
        "device|R x C|pattern|factor ms>|solve ms>|eager ms>|speed-up>|llm-compressor ms>"
        "|over the floor>|error ratio>|scratch over W + H>"
    )
    return markdown(header, (_sparsegpt_row(row) for row in rows))


def _sparsegpt_row(row: dict) -> list[str]:
    return [
        device_name(row),
        f"{row['R']} x {row['C']}",
        row["pattern"],
        *(f"{row[name]:.0f}" for name in ("factor_ms", "solve_ms", "baseline_ms")),
        f"{row['speedup']:.1f}x",
        f"{row['llm_compressor_ms']:.0f}" if "llm_compressor_ms" in row else "",
        f"{row['over_floor']:.2f}x",
        f"{row['error_ratio']:.4f}",
        f"{row['scratch_over_inputs']:.0%}" if "scratch_over_inputs" in row else "",
    ]


def factor_table(folder: Path) -> str:
    """H = U U^T."""
    rows = latest_by_machine(read_results(folder, "factor"), "impl", "C")
    header = "device|C>|implementation|ours ms>|three factorisations ms>|speed-up>|over the floor>"
    return markdown(header, (_factor_row(row) for row in rows))


def _factor_row(row: dict) -> list[str]:
    return [
        device_name(row),
        str(row["C"]),
        row["impl"],
        f"{row['time_ms']:.1f}",
        f"{row['baseline_ms']:.1f}",
        f"{row['speedup']:.1f}x",
        f"{row['time_ms'] / row['floor_ms']:.1f}x",
    ]


def masks_table(folder: Path) -> str:
    """Masks, and Wanda in one go."""
    keys = ("op", "impl", "dtype", "R", "C", "pattern")
    rows = latest_by_machine(read_results(folder, "masks"), *keys)
    header = "device|op|R x C|dtype|pattern|implementation|ours ms>|sort ms>|speed-up>|of copy>"
    return markdown(header, (_masks_row(row) for row in rows))


def _masks_row(row: dict) -> list[str]:
    return [
        device_name(row),
        f"`{row['op']}`",
        f"{row['R']} x {row['C']}",
        row["dtype"],
        row["pattern"],
        row["impl"],
        f"{row['time_ms']:.2f}",
        f"{row['baseline_ms']:.1f}",
        f"{row['speedup']:.1f}x",
        f"{100 * row['of_copy']:.0f}%",
    ]


def alps_table(folder: Path) -> str:
    """ALPS beside SparseGPT."""
    rows = latest_by_machine(read_results(folder, "alps"), "R", "C", "pattern")
    header = (
        "device|R x C|layers>|pattern|ALPS ms>|SparseGPT ms>|times as long>|error ratio>|largest>"
    )
    return markdown(header, (_alps_row(row) for row in rows))


def _alps_row(row: dict) -> list[str]:
    return [
        device_name(row),
        f"{row['R']} x {row['C']}",
        str(row["layers"]),
        row["pattern"],
        f"{row['time_ms']:.0f}",
        f"{row['baseline_ms']:.1f}",
        f"{row['times_baseline']:.0f}x",
        f"{row['error_ratio']:.3f}",
        f"{row['largest_error_ratio']:.3f}",
    ]


def capture_table(folder: Path) -> str:
    """Producers that append what they make to a ring."""
    rows = latest_by_machine(read_results(folder, "capture"), "op", "dtype", "D", "B")
    header = "device|op|dtype|D>|B>|us>|not appending us>|torch, not appending us>|over torch>"
    return markdown(header, (_capture_row(row) for row in rows))


def _capture_row(row: dict) -> list[str]:
    alone = row.get("alone_us")
    return [
        device_name(row),
        f"`{row['op']}`",
        row["dtype"],
        str(row["D"]),
        str(row["B"]),
        f"{row['time_us']:.1f}",
        "" if alone is None else f"{alone:.1f}",
        f"{row['baseline_us']:.1f}",
        f"{row['speedup']:.1f}x",
    ]


def decode_table(folder: Path) -> str:
    """Decoding with and without Hessians on the way."""
    rows = latest_by_machine(read_results(folder, "decode"), "model", "B")
    header = "device|model|B>|plain tokens/s>|with capture>|with hooks>|capture costs>|hooks cost>"
    return markdown(header, (_decode_row(row) for row in rows))


def _decode_row(row: dict) -> list[str]:
    rates = (row[f"{name}_tokens_per_s"] for name in ("plain", "capture", "hooks"))
    return [
        device_name(row),
        row["model"],
        str(row["B"]),
        *("" if rate is None else f"{rate:,.0f}" for rate in rates),
        f"{100 * row['overhead']:.1f}%",
        "" if row["hooks_overhead"] is None else f"{100 * row['hooks_overhead']:.1f}%",
    ]


def sample_table(folder: Path) -> str:
    """Nucleus sampling."""
    rows = latest_by_machine(read_results(folder, "sample"), "dtype", "B", "V", "logits")
    header = "device|logits||B>|V>|ours ms>|sort and scatter ms>|speed-up>"
    return markdown(header, (_sample_row(row) for row in rows))


def _sample_row(row: dict) -> list[str]:
    return [
        device_name(row),
        row["dtype"],
        row["logits"],
        str(row["B"]),
        str(row["V"]),
        f"{row['time_us'] / 1e3:.2f}",
        f"{row['baseline_us'] / 1e3:.1f}",
        f"{row['speedup']:.1f}x",
    ]


def attention_table(folder: Path) -> str:
    """Attention of decode steps."""
    keys = ("dtype", "model", "B", "columns")
    rows = latest_by_machine(read_results(folder, "attention"), *keys)
    header = "device|heads of||B>|columns>|ours ms>|products ms>|sdpa ms>|speed-up>|of readable>"
    return markdown(header, (_attention_row(row) for row in rows))


def _attention_row(row: dict) -> list[str]:
    return [
        device_name(row),
        row["model"],
        row["dtype"],
        str(row["B"]),
        str(row["columns"]),
        *(f"{row[f'{name}_us'] / 1e3:.2f}" for name in ("time", "matmul", "sdpa")),
        f"{row['speedup']:.1f}x",
        f"{100 * row['readable_share']:.0f}%",
    ]


KERNEL_TABLES: dict[str, Callable[[Path], str]] = {
    "hessian": hessian_table,
    "capture": capture_table,
    "decode": decode_table,
    "sample": sample_table,
    "attention": attention_table,
    "sparsegpt": sparsegpt_table,
    "factor": factor_table,
    "masks": masks_table,
    "alps": alps_table,
}
