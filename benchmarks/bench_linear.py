"""Linears with packed weights: ours beside dense ones in bf16 and in float32.

    python -m benchmarks.bench_linear [--device cuda] [--threads N] [--out benchmarks/results]
                                      [--shape R C ...] [--tokens T ...]

A row is one packing and implementation at one shape and batch; in fp8, rounding x is part of it and
its product is compared with that of what was rounded. The baseline is the fastest dense
linear, of F.linear and a product with a weight transposed beforehand, with a bf16 weight and x
or, on a CPU, with float32 ones, whose times stand beside each other: torch's bf16 is slow on CPUs
without bf16 instructions. A dense variant that takes more than SLOW times the fastest one's time in
its first call is not timed again and left out. Without --tokens a CPU is not asked for batches that
take torch's bf16 longer than half a minute (MOST_ON_A_CPU).

Counts bytes: what is packed (for 2:4 on a CPU the kernels' copy of the metadata in place of the
metadata, as large), x and y once. `of_readable` is bytes over time as a share of the readable
bandwidth of this run, a sum over a large tensor. Weights rotate, so that caches hold none: on a GPU
at least four, all in one CUDA graph whose time is divided by their number. All products are checked
before they are timed.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.common import (
    bench_options,
    device_seconds,
    environment,
    largest_cache_bytes,
    matmul_gflops,
    median_seconds,
    readable_gbps,
    report,
    time_once,
)
from rac_kernels import (
    Packed2to4,
    PackedBitmap,
    Pattern,
    linear_2to4,
    linear_2to4_fp8,
    linear_bitmap,
    linear_dense,
    pack_2to4,
    pack_bitmap,
    quantize_fp8_rows,
    select_mask,
)

# R x C of the ffn of R1-Distill-Qwen 1.5B, 7B, 14B and 32B: gate or up, down.
SHAPES = [(d, f) for d, f in ((1536, 8960), (3584, 18944), (5120, 13824), (5120, 27648))]
SHAPES = [shape for d, f in SHAPES for shape in ((f, d), (d, f))]
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 4096, 16384)
MOST_ON_A_CPU = 3e11  # R * C * T
# More than an L3, which may be shared with other machines' processes, and twice an L2.
CACHE_BYTES = {"cpu": max(130e6, 1.25 * largest_cache_bytes()), "cuda": 200e6}
SLOW = 8.0
SECONDS = 1.0  # about how long a row's functions are timed
PACKINGS = {linear_2to4: "2:4", linear_2to4_fp8: "2:4-fp8", linear_bitmap: "bitmap"}
PACKINGS |= {linear_dense: "dense_bfloat16"}
Function = Callable[[], Tensor]


def copies(packed: Packed2to4 | PackedBitmap | Tensor, device: str) -> list:
    """The weight, as often as caches need to be overrun."""
    kind = "cuda" if device.startswith("cuda") else "cpu"
    least = 4 if kind == "cuda" else 1
    count = max(least, math.ceil(CACHE_BYTES[kind] / packed.nbytes))
    clone = torch.clone if isinstance(packed, Tensor) else lambda p: p.map(torch.clone)
    return [packed, *(clone(packed) for _ in range(count - 1))]


def candidates(weights: dict[str, list], x: Tensor) -> dict[tuple[str, str], list[Function]]:
    """(op, implementation) -> a call for each copy of its weight."""
    calls: dict[tuple[str, str], list[Function]] = {}

    def add(op: str, name: str, function: Callable, copied: list, x: Tensor) -> None:
        calls[op, name] = [lambda w=w: function(x, w) for w in copied]

    impls = ("native", "cusparselt", "cutlass") if x.is_cuda else ("native",)
    for op, packing in PACKINGS.items():
        here = packing in weights and not (op is linear_dense and x.is_cuda)
        for impl in impls if here else ():
            function = partial(op, impl=impl)
            try:
                function(x, weights[packing][0])
            except ValueError as error:
                print(error)
                continue
            add(op.__name__, impl, function, weights[packing], x)
    for name, copied in weights.items():
        if name.startswith("dense"):
            rows = x.float() if name == "dense_float32" else x
            add(name, "linear", linear, copied, rows)
            add(name, "mm", lambda x, w: x @ w, [w.mT.contiguous() for w in copied], rows)
    return calls


def check(calls: dict[tuple[str, str], list[Function]], truths: dict[str, Tensor]) -> None:
    """Refuse to time a wrong product; truths: op -> x W^T in float32."""
    for (op, name), functions in calls.items():
        expected = truths.get(op, truths["linear_2to4"])
        error = float((functions[0]().float() - expected).abs().max() / expected.abs().max())
        assert error < 1e-2, f"{op} {name} is off by {error}"


def timed(calls: dict[tuple[str, str], list[Function]], device: str) -> dict:
    """Seconds of a call of each, in turns; the slow ones are left out."""
    if device.startswith("cuda"):
        graphs = {key: graph_of(functions) for key, functions in calls.items()}
        seconds = device_seconds(graphs, 9, device)
        return {key: value / len(calls[key]) for key, value in seconds.items()}
    first = {key: time_once(functions[0], device) for key, functions in calls.items()}
    dense = min(s for (op, _), s in first.items() if op.startswith("dense"))
    kept = {
        key: itertools.cycle(calls[key])
        for key, s in first.items()
        if not key[0].startswith("dense") or s < SLOW * dense
    }
    for key in kept:
        for function in calls[key][1:]:
            function()  # the first call with a weight makes what is kept of it
    turn = sum(first[key] for key in kept)
    repeats = max(3, min(51, round(SECONDS / turn)))
    return median_seconds({k: lambda c=c: next(c)() for k, c in kept.items()}, repeats)


def graph_of(functions: list[Function]) -> Callable[[], None]:
    """All calls as one CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for function in functions:
            function()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for function in functions:
            function()
    return graph.replay


def bench(shape: tuple[int, int], batches: list[int], options, ceilings: dict) -> Iterator[dict]:
    """Rows of a shape, batch after batch."""
    torch.manual_seed(0)
    rows, columns = shape
    dense = torch.randn(rows, columns, device=options.device)
    sparse = dense * select_mask(dense.abs(), Pattern.parse("2:4"))
    halved = (dense * (torch.rand_like(dense) < 0.5)).bfloat16()
    weight = sparse.bfloat16()
    del dense, sparse
    values, scale = quantize_fp8_rows(weight)
    packed = {"2:4": pack_2to4(weight), "2:4-fp8": pack_2to4(values, scale=scale)}
    if options.device == "cpu":
        packed["bitmap"] = pack_bitmap(halved)
    weights = {name: copies(one, options.device) for name, one in packed.items()}
    names = {op.__name__: packing for op, packing in PACKINGS.items()}
    weights["dense_bfloat16"] = copies(weight, options.device)
    if options.device == "cpu":
        weights["dense_float32"] = copies(weight.float(), options.device)
    for tokens in batches:
        x = torch.randn(tokens, columns, device=options.device).bfloat16()
        calls = candidates(weights, x)
        truths = {"linear_2to4": linear(x.float(), weight.float())}
        truths["linear_bitmap"] = linear(x.float(), halved.float())
        truths["linear_2to4_fp8"] = linear(rounded(x), rounded(weight))
        check(calls, truths)
        seconds = timed(calls, options.device)
        for op, impl in seconds:
            if op.startswith("linear"):
                nbytes = weights[names[op]][0].nbytes
                yield row_of(op, impl, shape, tokens, seconds, nbytes, options, ceilings)


def rounded(x: Tensor) -> Tensor:
    """Rows in float32 as they come back from fp8."""
    values, scale = quantize_fp8_rows(x)
    return values.float() * scale[:, None]


def row_of(
    op: str,
    impl: str,
    shape: tuple[int, int],
    tokens: int,
    seconds: dict[tuple[str, str], float],
    weight_bytes: int,
    options,
    ceilings: dict,
) -> dict:
    """One result row."""
    dense = {name: s for name, s in seconds.items() if name[0].startswith("dense")}
    best = min(dense, key=dense.get)
    moved = weight_bytes + 2 * tokens * sum(shape)
    row = {
        "op": op,
        "impl": impl,
        "device": options.device,
        "dtype": "bfloat16",
        "R": shape[0],
        "C": shape[1],
        "T": tokens,
        "time_ms": seconds[op, impl] * 1e3,
        "baseline": " ".join(best),
        "baseline_ms": dense[best] * 1e3,
        "speedup": dense[best] / seconds[op, impl],
    }
    for kind in ("dense_bfloat16", "dense_float32"):
        times = [s for name, s in dense.items() if name[0] == kind]
        row[f"{kind}_ms"] = min(times) * 1e3 if times else None
    achieved = moved / seconds[op, impl] / 1e9
    row |= {"bytes": moved, "gbps": achieved, "of_readable": achieved / ceilings["readable_gbps"]}
    # of values alone: the zeros that a dense product multiplies are not counted
    return row | {"flops": tokens * math.prod(shape)} | ceilings


def main() -> None:
    parser = bench_options(__doc__)
    parser.add_argument("--shape", type=int, nargs=2, action="append", help="R C, repeatable")
    parser.add_argument("--tokens", type=int, nargs="+", help="T, several")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shapes = [tuple(shape) for shape in options.shape or SHAPES]
    start = time.perf_counter()
    in_bf16 = options.device != "cpu" or environment()["instruction_set"] == "amx"
    dtype = torch.bfloat16 if in_bf16 else torch.float32
    size = None if options.device.startswith("cuda") else 2048
    ceilings = {"matmul_gflops": matmul_gflops(size, options.device, dtype)}
    ceilings["matmul_dtype"] = str(dtype).removeprefix("torch.")
    for shape in shapes[:1] if options.quick else shapes:
        ceilings |= {"readable_gbps": readable_gbps(options.device)}
        most = math.inf if options.device != "cpu" else MOST_ON_A_CPU / math.prod(shape)
        tokens = options.tokens or [count for count in TOKENS if count <= most]
        for row in bench(shape, tokens, options, ceilings):
            report(row, options.out, "linear")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
