"""Hessian rank-k updates: ours against `H += X^T X`, what SparseGPT's and others' scripts run.

    python -m benchmarks.bench_hessian [--device cuda] [--threads N] [--out benchmarks/results]

A row is one implementation at one shape; the one that "auto" takes comes last. The baseline is what
sparsegpt and llm-compressor run: x to float32, and all of H. On a GPU there are two more, as
columns: `torch.mm(out_dtype=float32)` + add_ in x's own dtype, and quack's symmetric product where
it is installed; on a CPU with AMX torch's own bf16 product, whose result is rounded to bf16. All
are checked against the baseline first, and take turns.

Counts T*D*(D+1) flops: the multiply-adds of one triangle, which is all that H holds; the baselines
do about twice as many. Bytes: x once, the triangle read and written. `floor_ms` is the slower of
both at the matrix product and copy rates measured in this run. Random data: zeros run faster. Data
sets rotate until they are larger than a GPU's L2 cache.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common import bench_options, copy_gbps, device_seconds, matmul_gflops, report
from rac_kernels import PackedTriangle, hessian_accumulate_, native_status

# (D, T). D: R1-Distill-Qwen-1.5B hidden, the CPU goal's two ends, 7B hidden, 1.5B ffn.
CPU_SHAPES = [(1536, 4096), (2048, 4096), (3584, 4096), (4096, 4096), (8960, 4096)]
# 1.5B, 7B and 14B/32B hidden, 14B, 7B and 32B ffn.
GPU_SHAPES = [(d, t) for d in (1536, 3584, 5120, 13824, 18944, 27648) for t in (4096, 131072)]
GPU_FLOAT_SHAPES = [(1536, 4096), (5120, 4096)]
CACHE_BYTES = 200e6  # of which an H200's L2 is 60
Update = Callable[[Tensor, Tensor], object]


def full_(hessian: Tensor, x: Tensor) -> None:
    """All of H, in float32: sparsegpt's and llm-compressor's own update."""
    x = x.float()
    hessian += x.mT @ x


def mm_add_(hessian: Tensor, x: Tensor) -> None:
    """All of H by tensor cores, kept in float32."""
    hessian.add_(torch.mm(x.mT, x, out_dtype=torch.float32))


def mm_rounded_(hessian: Tensor, x: Tensor) -> None:
    """All of H, each product rounded to bf16: no other one is there on a CPU."""
    hessian += x.mT @ x


def has_amx() -> bool:
    """Whether the CPU multiplies bf16: without, torch's own product takes seconds to hours."""
    return native_status()["cpu"] == "ok (amx)"


def other_baselines(x: Tensor) -> dict[str, Update]:
    """What else runs in bf16: name -> update of all of H; only those that work here."""
    if x.dtype == torch.float32 or not (x.is_cuda or has_amx()):
        return {}
    if not x.is_cuda:
        return {"mm_rounded": mm_rounded_}
    found: dict[str, Update] = {"mm_add": mm_add_}
    try:
        from quack.gemm_interface import gemm_symmetric

        def quack_(hessian: Tensor, x: Tensor) -> None:
            product = torch.empty_like(hessian)
            gemm_symmetric(x.mT, x, out=product, out_dtype=torch.float32)
            hessian.add_(product)

        found["quack"] = quack_
    except ImportError:
        pass
    probe = x[:256, :512].contiguous()
    for name, update in list(found.items()):
        try:
            update(torch.zeros(512, 512, device=x.device), probe)
        except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
            print(f"{name} does not run here: {error}")
            del found[name]
    return found


def implementations(features: int, dtype: torch.dtype, options) -> dict[tuple[str, str], Update]:
    """(implementation, configuration) -> update; the default last."""

    def public(impl: str) -> Update:
        return lambda hessian, x: hessian_accumulate_(hessian, x, impl=impl)

    if not options.device.startswith("cuda"):
        built = native_status()["cpu"].startswith("ok")
        return {(impl, ""): public(impl) for impl in ["reference", "native"][: 1 + built]}
    from rac_kernels._triton import hessian_accumulate, tuning

    device = torch.device(options.device)
    default = tuning.pick_hessian(features, dtype, False, True, device)
    kinds = ("float32",) if dtype == torch.float32 else ("wide", "narrow")
    tried = [tuning.HESSIAN[tuning.capability(device), kind] for kind in kinds if options.all]
    found: dict[tuple[str, str], Update] = {}
    for config in itertools.chain(*tried):
        if config != default:
            found["triton", _describe(config)] = lambda h, x, config=config: (
                hessian_accumulate.hessian_accumulate_(h, x, None, config=config)
            )
    return found | {("triton", _describe(default)): public("triton")}


def _describe(config: object) -> str:
    """The fields of a configuration, as in "128 256 64 8 4 1 8 16384 bf16x6 False"."""
    return " ".join(str(value) for value in dataclasses.astuple(config))


def bench(features: int, tokens: int, dtype: torch.dtype, options, ceilings: dict) -> list[dict]:
    """Check that all agree, then time them in turns; a row for each implementation."""
    torch.manual_seed(0)
    flops = tokens * features * (features + 1)
    moved = tokens * features * dtype.itemsize + 4 * features * (features + 1)
    sets = 1 if options.device == "cpu" else min(8, math.ceil(CACHE_BYTES / moved))
    xs = [torch.randn(tokens, features, device=options.device, dtype=dtype) for _ in range(sets)]
    hs = [torch.zeros(features, features, device=options.device) for _ in range(sets)]
    ours = implementations(features, dtype, options)
    updates = {"full": full_} | other_baselines(xs[0]) | ours
    if options.packed:
        packed = itertools.cycle([PackedTriangle.zeros(features, h.device) for h in hs])
        updates["packed"] = lambda h, x: hessian_accumulate_(next(packed), x)
    check(updates, xs[0][: min(tokens, 8192)])
    data = itertools.cycle(zip(hs, xs, strict=True))
    seconds = device_seconds(
        {name: lambda update=update: update(*next(data)) for name, update in updates.items()},
        options.repeats,
        options.device,
    )
    multiplied = dtype if dtype in ceilings else torch.float32
    gflops = ceilings[multiplied]
    names = ("mm_add", "mm_rounded", "quack", "packed")
    others = {f"{name}_ms": seconds[name] * 1e3 for name in names if name in seconds}
    return [
        {
            "op": "hessian_accumulate_",
            "impl": impl,
            "config": config,
            "device": options.device,
            "dtype": str(dtype).removeprefix("torch."),
            "D": features,
            "T": tokens,
            "time_ms": seconds[impl, config] * 1e3,
            "baseline": "H += X.T @ X, float32",
            "baseline_ms": seconds["full"] * 1e3,
            "speedup": seconds["full"] / seconds[impl, config],
            **others,
            "gflops": flops / seconds[impl, config] / 1e9,
            "gbps": moved / seconds[impl, config] / 1e9,
            "flops": flops,
            "bytes": moved,
            "matmul_gflops": gflops,
            "matmul_dtype": str(multiplied).removeprefix("torch."),
            "copy_gbps": ceilings["copy"],
            "floor_ms": max(flops / gflops, moved / ceilings["copy"]) / 1e6,
        }
        for impl, config in ours
    ]


def check(updates: dict, x: Tensor) -> None:
    """Refuse to time anything whose lower triangle differs from the baseline's."""
    features = x.shape[1]
    expected = torch.zeros(features, features, device=x.device)
    full_(expected, x)
    expected.tril_()
    for name, update in updates.items():
        if name != "packed":
            hessian = torch.zeros_like(expected)
            update(hessian, x)
            error = float((hessian.tril_() - expected).abs().max())
            limit = 1e-4 * len(x)
            if name == "mm_rounded":
                limit += 2.0**-8 * float(expected.abs().max())
            assert error < limit, f"{name} is off by {error} at D={features}, T={len(x)}"


def main() -> None:
    parser = bench_options(__doc__)
    parser.add_argument("--all", action="store_true", help="every tuning candidate (GPU)")
    parser.add_argument("--packed", action="store_true", help="also a packed H")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gpu = options.device.startswith("cuda")
    dtypes = (torch.bfloat16, torch.float32) if gpu or has_amx() else (torch.float32,)
    ceilings: dict = {d: matmul_gflops(device=options.device, dtype=d) for d in dtypes}
    ceilings["copy"] = copy_gbps(options.device)
    if gpu:
        shapes = [(*s, torch.bfloat16) for s in GPU_SHAPES]
        shapes += [(*s, torch.float32) for s in GPU_FLOAT_SHAPES]
    else:
        shapes = [(*s, d) for s in CPU_SHAPES for d in (torch.float32, torch.bfloat16)]
    for features, tokens, dtype in shapes[:2] if options.quick else shapes:
        for row in bench(features, tokens, dtype, options, ceilings):
            report(row, options.out, "hessian")


if __name__ == "__main__":
    main()
