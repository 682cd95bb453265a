"""CUDA linears with packed weights at 1 to 64 tokens, beside dense ones; needs a GPU.

    python -m benchmarks.bench_linear_cuda --device cuda [--quick] [--out benchmarks/results]

Counts bytes: the packed weight, x and y once each; `of_copy` is that over the time, as a share of
the copy bandwidth measured in this run. The baseline is the faster of F.linear and a product with a
weight that was transposed before. Everything runs from CUDA graphs that rotate over at least four
weights larger than any L2 cache together. Results are checked against float64 first.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.common import bench_options, copy_gbps, device_seconds, report
from rac_kernels import linear_2to4_fp8, quantize_fp8_rows
from rac_kernels._native.linear_cuda import linear_2to4_cuda, linear_bitmap_cuda, why_not_cuda
from rac_kernels.ops.packing import pack_2to4, pack_bitmap
from rac_kernels.packed import Packed2to4

# R x C of gate or up and of down: 7B, 14B, 32B.
SHAPES = [(18944, 3584), (3584, 18944), (13824, 5120), (5120, 13824), (27648, 5120), (5120, 27648)]
TOKENS = (1, 4, 8, 16, 32, 64)
CACHE_BYTES = 200e6  # of which an H200's L2 is 60
UNIT = 2.0**-23  # tensor cores round towards zero


def pack_fp8(weight: Tensor) -> Packed2to4:
    """A weight in fp8, a scale a row."""
    values, scale = quantize_fp8_rows(weight)
    return pack_2to4(values, scale=scale)


def rounded(x: Tensor) -> Tensor:
    """Rows as they come back from fp8, in float64."""
    values, scale = quantize_fp8_rows(x)
    return values.double() * scale.double()[:, None]


def same(x: Tensor) -> Tensor:
    """Widen x to float64."""
    return x.double()


# Packing -> what packs, what multiplies, what it multiplies. In fp8, rounding x is timed too.
KINDS = {
    "2:4": (pack_2to4, linear_2to4_cuda, same),
    "2:4-fp8": (pack_fp8, partial(linear_2to4_fp8, impl="native"), rounded),
    "0.5": (pack_bitmap, linear_bitmap_cuda, same),
}
OPS = {"2:4": "linear_2to4", "2:4-fp8": "linear_2to4_fp8", "0.5": "linear_bitmap"}


def sparse_weight(rows: int, columns: int, pattern: str) -> Tensor:
    """Two random values of every four, or half of all."""
    weight = torch.randn(rows, columns // 4, 4, device="cuda")
    chances = torch.rand_like(weight)
    kept = chances < 0.5 if pattern == "0.5" else chances.argsort(2).argsort(2) < 2
    return (weight * kept).view(rows, columns).bfloat16()


def graph_of(calls: list[Callable[[], Tensor]]) -> Callable[[], None]:
    """All calls, one after the other, as a CUDA graph to replay."""
    for call in calls:
        call()  # compiles, reorders
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph.replay


def check(y: Tensor, x: Tensor, weight: Tensor) -> None:
    """Against float64: a float32 sum in any order, a few factors, rounded once."""
    truth, size = x @ weight.mT, x.abs() @ weight.abs().mT
    bound = (x.shape[1] + 5) * UNIT * size + 2.0**-8 * truth.abs()
    assert bool(((y.double() - truth).abs() <= bound).all()), "the result is wrong"


def bench(rows: int, columns: int, pattern: str, options, gbps: float) -> None:
    """A row for each number of tokens."""
    pack, ours, multiplied = KINDS[pattern]
    share = 0.625 if pattern == "2:4-fp8" else 1.125  # bytes of a weight
    sets = max(4, math.ceil(CACHE_BYTES / (share * rows * columns)))
    weights = [sparse_weight(rows, columns, pattern) for _ in range(sets)]
    packed = [pack(weight) for weight in weights]
    transposed = [weight.mT.contiguous() for weight in weights]
    for tokens in TOKENS[:1] if options.quick else TOKENS:
        x = torch.randn(tokens, columns, device="cuda").bfloat16()
        reason = why_not_cuda(x, packed[0])
        assert reason is None, reason
        check(ours(x, packed[0], None), multiplied(x), multiplied(weights[0]))
        calls = {
            "ours": [partial(ours, x, p, None) for p in packed],
            "linear": [partial(torch.nn.functional.linear, x, w) for w in weights],
            "transposed": [partial(torch.mm, x, w) for w in transposed],
        }
        graphs = {name: graph_of(listed) for name, listed in calls.items()}
        seconds = device_seconds(graphs, options.repeats, options.device)
        us = {name: value / sets * 1e6 for name, value in seconds.items()}
        moved = share * rows * columns + 2 * tokens * (rows + columns)
        row = {
            "op": OPS[pattern],
            "device": options.device,
            "dtype": "bfloat16",
            "pattern": pattern,
            **{"R": rows, "C": columns, "T": tokens},
            "time_us": us["ours"],
            "linear_us": us["linear"],
            "transposed_us": us["transposed"],
            "speedup": min(us["linear"], us["transposed"]) / us["ours"],
            "bytes": moved,
            "of_copy": moved / us["ours"] / 1e3 / gbps,
        }
        report(row, options.out, "linear_cuda")


def main() -> None:
    """Command line."""
    options = bench_options(__doc__).parse_args()
    gbps = copy_gbps(options.device)
    for pattern in KINDS:
        for rows, columns in SHAPES[:1] if options.quick else SHAPES:
            bench(rows, columns, pattern, options, gbps)


if __name__ == "__main__":
    main()
