"""The factor H = U U^T against what SparseGPT's and others' scripts factor: three O(C^3) steps.

    python -m benchmarks.bench_factor [--device cuda] [--threads N] [--out benchmarks/results]

The baseline is float32 cholesky, cholesky_inverse, cholesky of the inverse, on the same H and in
the same run. A row is one implementation at one C. Counts C^3/3 flops, of which the baseline does
eight times as many; `floor_ms` is their time at the float32 matrix product rate of this run.
Checked before it is timed: ||U U^T V - H V|| / ||H V|| on random V, multiplied in float64.
"""

import torch
from torch import Tensor

from benchmarks.bench_sparsegpt import random_hessian
from benchmarks.common import bench_options, device_seconds, matmul_gflops, report
from rac_kernels import factor_hessian

# 1.5B hidden, and the CPU goals' two.
CPU_SIZES = (1536, 2048, 4096)
# 1.5B, 7B and 14B/32B hidden, 14B, 7B and 32B ffn.
GPU_SIZES = (1536, 3584, 5120, 13824, 18944, 27648)
DAMPING = 0.01


def three_factorisations(hessian: Tensor) -> Tensor:
    """The upper triangular R of H^-1 = R^T R, as published."""
    damped = hessian.clone()
    damped.diagonal().add_(DAMPING * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


def residual(upper: Tensor, hessian: Tensor) -> float:
    """||U U^T V - H V|| / ||H V|| with H the damped one and V [C, 8] random, in float64."""
    v = torch.randn(hessian.shape[0], 8, dtype=torch.float64, device=hessian.device)
    mean = hessian.diagonal().double().mean()
    expected = _product(hessian, v) + DAMPING * mean * v
    got = _product(upper, _product(upper.mT, v))
    return float((got - expected).norm() / expected.norm())


def _product(matrix: Tensor, v: Tensor, rows: int = 4096) -> Tensor:
    """Matrix @ v in float64, without a float64 copy of the matrix."""
    return torch.cat([part.double() @ v for part in matrix.split(rows)])


def bench(columns: int, options, gflops: float) -> list[dict]:
    """Check each implementation, then time all of them and the baseline in turns."""
    hessian = random_hessian(columns, options.device)
    impls = ["reference", "triton" if options.device.startswith("cuda") else "native"]
    errors = {i: residual(factor_hessian(hessian, DAMPING, impl=i).upper, hessian) for i in impls}
    for impl, error in errors.items():
        assert error < 1e-5, f"{impl}: U U^T differs from H by {error} at C={columns}"
    functions = {i: (lambda i=i: factor_hessian(hessian, DAMPING, impl=i)) for i in impls}
    functions["baseline"] = lambda: three_factorisations(hessian)
    seconds = device_seconds(functions, options.repeats, options.device)
    flops = columns**3 / 3
    return [
        {
            "op": "factor_hessian",
            "impl": impl,
            "device": options.device,
            "C": columns,
            "time_ms": seconds[impl] * 1e3,
            "baseline": "chol + cholesky_inverse + chol, float32",
            "baseline_ms": seconds["baseline"] * 1e3,
            "speedup": seconds["baseline"] / seconds[impl],
            "gflops": flops / seconds[impl] / 1e9,
            "flops": flops,
            "matmul_gflops": gflops,
            "floor_ms": flops / gflops / 1e6,
            "residual": errors[impl],
        }
        for impl in impls
    ]


def main() -> None:
    options = bench_options(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    gflops = matmul_gflops(device=options.device)
    sizes = GPU_SIZES if options.device.startswith("cuda") else CPU_SIZES
    for columns in sizes[:1] if options.quick else sizes:
        for row in bench(columns, options, gflops):
            report(row, options.out, "factor")


if __name__ == "__main__":
    main()
