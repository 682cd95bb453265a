"""Masks: 2:4 and a share of every row, alone and with Wanda's scores and the pruned weight.

    python -m benchmarks.bench_masks [--device cuda] [--threads N] [--shape R C] [--out FOLDER]

Counts bytes: every score read once and a byte of mask written, for Wanda also the weight written.
`of_copy` is that over the time, as a share of the copy bandwidth measured in this run; for "triton"
over `kernel_ms`, the launches without the checks that read a result back. Baselines: a stable sort
of each row (each group), which is what the published scripts run, and for Wanda `separate_ms`, the
same selection with scores and zeros in kernels of their own. All masks are compared before anything
is timed. Data sets rotate until they are larger than a GPU's L2 cache.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common import bench_options, copy_gbps, device_seconds, report
from rac_kernels import Pattern, native_status, select_mask, wanda

# R x C. The CPU goals': a square, half of a 7B's down. 7B hidden, gate or up, down; 32B down.
CPU_SHAPES = [(4096, 4096), (3584, 9472)]
GPU_SHAPES = [(3584, 3584), (18944, 3584), (3584, 18944), (5120, 27648)]
PATTERNS = ("2:4", "0.5")
CACHE_BYTES = 200e6  # of which an H200's L2 is 60


def sorted_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """Keep-mask by a stable sort of every row or group."""
    groups = scores.view(-1, pattern.m) if pattern.structured else scores
    count = pattern.n if pattern.structured else pattern.count(scores.shape[1])
    pruned = groups.sort(dim=1, stable=True).indices[:, :count]
    return torch.ones_like(groups, dtype=torch.bool).scatter_(1, pruned, False).view_as(scores)


def implementations(pattern: Pattern, device: str) -> list[str]:
    """What can run here; the one that "auto" takes last."""
    if device.startswith("cuda"):
        cuda = pattern.structured and native_status()["cuda"] == "ok"
        return ["reference", *["native"] * cuda, "triton"]
    built = native_status()["cpu"].startswith("ok")
    return ["reference", *["native"] * built]


def bench(
    rows: int, columns: int, dtype: torch.dtype, pattern: Pattern, options, gbps: float
) -> list[dict]:
    """Check all masks, then time them in turns; a row for each operation and implementation."""
    torch.manual_seed(0)
    size = rows * columns
    sets = 1 if options.device == "cpu" else min(8, math.ceil(CACHE_BYTES / size / dtype.itemsize))
    weights = [torch.randn(rows, columns, device=options.device).to(dtype) for _ in range(sets)]
    diagonal = torch.rand(columns, device=options.device) + 0.1
    impls = implementations(pattern, options.device)

    def separate(weight: Tensor) -> tuple[Tensor, Tensor]:
        mask = select_mask(weight.float().abs() * diagonal.sqrt(), pattern, impl=impls[-1])
        return weight.masked_fill(~mask, 0), mask

    def sorted_wanda(weight: Tensor) -> tuple[Tensor, Tensor]:
        mask = sorted_mask(weight.float().abs() * diagonal.sqrt(), pattern)
        return weight.masked_fill(~mask, 0), mask

    functions: dict[tuple[str, str], Callable] = {}
    for impl in impls:
        functions["select_mask", impl] = lambda w, i=impl: select_mask(w, pattern, impl=i)
        functions["wanda", impl] = lambda w, i=impl: wanda(w, diagonal, pattern, impl=i)[1]
    expected = {
        "select_mask": sorted_mask(weights[0], pattern),
        "wanda": sorted_wanda(weights[0])[1],
    }
    for (op, impl), function in functions.items():
        assert torch.equal(function(weights[0]), expected[op]), f"{op} {impl} is not the sort's"
    if impls[-1] == "triton":
        from rac_kernels._triton import select_mask as kernel

        functions["select_mask", "kernel"] = lambda w: kernel.select_mask(w, pattern, "row", 128)
        functions["wanda", "kernel"] = lambda w: kernel.select_mask(
            w, pattern, "row", 128, score="wanda", diagonal=diagonal, prune=True
        )
    functions["select_mask", "sort"] = lambda w: sorted_mask(w, pattern)
    functions["wanda", "sort"] = sorted_wanda
    functions["wanda", "separate"] = separate
    data = itertools.cycle(weights)
    timed = {key: lambda f=f: f(next(data)) for key, f in functions.items()}
    seconds = device_seconds(timed, options.repeats, options.device)
    return [
        _row(op, impl, rows, columns, dtype, pattern, options.device, seconds, gbps)
        for op in ("select_mask", "wanda")
        for impl in impls
    ]


def _row(
    op: str,
    impl: str,
    rows: int,
    columns: int,
    dtype: torch.dtype,
    pattern: Pattern,
    device: str,
    seconds: dict,
    gbps: float,
) -> dict:
    moved = rows * columns * (dtype.itemsize * (1 if op == "select_mask" else 2) + 1)
    timed = (op, "kernel" if impl == "triton" else impl)
    achieved = moved / seconds[timed] / 1e9
    row = {
        "op": op,
        "impl": impl,
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "R": rows,
        "C": columns,
        "pattern": str(pattern),
        "time_ms": seconds[op, impl] * 1e3,
        "baseline": "stable sort of each row or group",
        "baseline_ms": seconds[op, "sort"] * 1e3,
        "speedup": seconds[op, "sort"] / seconds[op, impl],
        "bytes": moved,
        "gbps": achieved,
        "copy_gbps": gbps,
        "of_copy": achieved / gbps,
    }
    if impl == "triton":
        row["kernel_ms"] = seconds[op, "kernel"] * 1e3
    if op == "wanda":
        row["separate_ms"] = seconds["wanda", "separate"] * 1e3
    return row


def main() -> None:
    parser = bench_options(__doc__)
    parser.add_argument("--shape", type=int, nargs=2, metavar=("R", "C"), help="this shape alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gbps = copy_gbps(options.device)
    gpu = options.device.startswith("cuda")
    shapes = [options.shape] if options.shape else GPU_SHAPES if gpu else CPU_SHAPES
    cases = list(itertools.product(shapes, (torch.bfloat16, torch.float32), PATTERNS))
    for (rows, columns), dtype, pattern in cases[:2] if options.quick else cases:
        for row in bench(rows, columns, dtype, Pattern.parse(pattern), options, gbps):
            report(row, options.out, "masks")


if __name__ == "__main__":
    main()
