"""A whole layer's SparseGPT (factor and solve) against the published algorithm run eagerly.

    python -m benchmarks.bench_sparsegpt [--device cuda] [--threads N] [--out benchmarks/results]

The baseline is benchmarks/peers/eager_sparsegpt.py: Cholesky, inverse, upper Cholesky, a loop over
columns in torch. The floor is C^3/3 + R*C^2 flops (the factor and the left-looking products) at the
matrix-product rate measured in the same run. Both are checked before they are timed: the same
Hessian, and an output error ||(W - Q) X|| that is not larger than the baseline's.
"""

import torch
from torch import Tensor, nn

from benchmarks.common import bench_options, matmul_gflops, median_seconds, report
from benchmarks.peers.eager_sparsegpt import EagerSparseGPT, parse_pattern
from rac_kernels import Pattern, factor_hessian, hessian_accumulate_, sparsegpt, symmetrize_

# R x C: the three (3584 x 9472 is a 7B down projection halved), and 1.5B's hidden square.
SHAPES = [(1536, 1536), (2048, 2048), (4096, 4096), (3584, 9472)]
PATTERNS = ("0.5", "2:4")


def random_layer(rows: int, columns: int, device: str) -> tuple[Tensor, Tensor]:
    """A weight [R, C] and the Hessian [C, C] of 2C correlated tokens with uneven scales."""
    torch.manual_seed(0)
    hessian = torch.zeros(columns, columns, device=device)
    scale = 10 ** torch.linspace(-0.5, 0.5, columns, device=device)
    shared = torch.randn(64, columns, device=device)
    for _ in range(8):
        x = torch.randn(columns // 4, columns, device=device)
        x += torch.randn(columns // 4, 64, device=device) @ shared / 8
        hessian_accumulate_(hessian, x * scale)
    return torch.randn(rows, columns, device=device), symmetrize_(hessian)


def eager(weight: Tensor, hessian: Tensor, pattern: str) -> Tensor:
    """The published algorithm on a layer whose Hessian is given."""
    layer = nn.Linear(*weight.shape[::-1], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    solver = EagerSparseGPT(layer)
    solver.hessian = hessian.clone()
    solver.prune(parse_pattern(pattern))
    return layer.weight.data


def output_error(weight: Tensor, pruned: Tensor, hessian: Tensor) -> float:
    """||(W - Q) X||_F by H."""
    change = pruned - weight
    return float(((change @ hessian) * change).sum(dtype=torch.float64).sqrt())


def bench(rows: int, columns: int, pattern: str, options, ceiling: float) -> dict:
    """Check the errors, then time the stages and the baseline in turns."""
    weight, hessian = random_layer(rows, columns, options.device)
    factor = factor_hessian(hessian)
    pruned, mask, _ = sparsegpt(weight, factor, Pattern.parse(pattern))
    theirs = eager(weight, hessian, pattern)
    error, their_error = (output_error(weight, q, hessian) for q in (pruned, theirs))
    assert error <= their_error * (1 + 1e-4), f"{error} is larger than {their_error}"
    seconds = median_seconds(
        {
            "factor": lambda: factor_hessian(hessian),
            "solve": lambda: sparsegpt(weight, factor, Pattern.parse(pattern)),
            "eager": lambda: eager(weight, hessian, pattern),
        },
        options.repeats,
        options.device,
    )
    ours = seconds["factor"] + seconds["solve"]
    floor = (columns**3 / 3 + rows * columns**2) / ceiling / 1e9
    return {
        "op": "factor_hessian + sparsegpt",
        "device": options.device,
        "R": rows,
        "C": columns,
        "pattern": pattern,
        "time_ms": ours * 1e3,
        "factor_ms": seconds["factor"] * 1e3,
        "solve_ms": seconds["solve"] * 1e3,
        "baseline": "chol + cholesky_inverse + chol + column loop, float32",
        "baseline_ms": seconds["eager"] * 1e3,
        "speedup": seconds["eager"] / ours,
        "matmul_gflops": ceiling,
        "floor_ms": floor * 1e3,
        "over_floor": ours / floor,
        "error_ratio": error / their_error,
        "same_mask": float(((theirs != 0) == mask).double().mean()),
    }


def main() -> None:
    options = bench_options(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    ceiling = matmul_gflops(device=options.device)
    for rows, columns in SHAPES[:1] if options.quick else SHAPES:
        for pattern in PATTERNS:
            report(bench(rows, columns, pattern, options, ceiling), options.out, "sparsegpt")


if __name__ == "__main__":
    main()
