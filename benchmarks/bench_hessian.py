"""Hessian rank-k updates: ours against `H += X^T X`, what SparseGPT's and others' scripts run.

    python -m benchmarks.bench_hessian [--device cuda] [--threads N] [--out benchmarks/results]

Counts T*D*(D+1) flops for both: the multiply-adds of one triangle, which is all that H holds. The
baseline does about twice as many, so the floor of a triangle at the measured matrix-product rate is
printed beside. Random data: zeros run faster.
"""

import torch
from torch import Tensor

from benchmarks.common import bench_options, matmul_gflops, median_seconds, report
from rac_kernels import hessian_accumulate_

# D: R1-Distill-Qwen-1.5B hidden, the CPU goal's two ends, 7B hidden, 1.5B ffn.
SHAPES = [(1536, 4096), (2048, 4096), (3584, 4096), (4096, 4096), (8960, 4096)]
DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float32, torch.bfloat16)}


def baseline_(hessian: Tensor, x: Tensor) -> None:
    """All of H, in float32: sparsegpt's and llm-compressor's own update."""
    x = x.float()
    hessian += x.mT @ x


def bench(features: int, tokens: int, dtype: torch.dtype, options, ceiling: float) -> dict:
    """Check that both agree, then time them in turns."""
    torch.manual_seed(0)
    x = torch.randn(tokens, features, device=options.device).to(dtype)
    ours, theirs = torch.zeros(2, features, features, device=options.device)
    hessian_accumulate_(ours, x)
    baseline_(theirs, x)
    torch.testing.assert_close(ours.tril(), theirs.tril(), rtol=1e-4, atol=1e-3 * tokens**0.5)
    seconds = median_seconds(
        {"rac_kernels": lambda: hessian_accumulate_(ours, x), "full": lambda: baseline_(theirs, x)},
        options.repeats,
        options.device,
    )
    flops = tokens * features * (features + 1)
    return {
        "op": "hessian_accumulate_",
        "device": options.device,
        "dtype": str(dtype).removeprefix("torch."),
        "D": features,
        "T": tokens,
        "time_ms": seconds["rac_kernels"] * 1e3,
        "baseline": "H += X.T @ X, float32",
        "baseline_ms": seconds["full"] * 1e3,
        "speedup": seconds["full"] / seconds["rac_kernels"],
        "gflops": flops / seconds["rac_kernels"] / 1e9,
        "matmul_gflops": ceiling,
        "floor_ms": flops / ceiling / 1e6,
    }


def main() -> None:
    options = bench_options(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    ceiling = matmul_gflops(device=options.device)
    for features, tokens in SHAPES[:1] if options.quick else SHAPES:
        for dtype in DTYPES[options.device.split(":")[0]]:
            report(bench(features, tokens, dtype, options, ceiling), options.out, "hessian")


if __name__ == "__main__":
    main()
