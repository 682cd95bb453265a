"""One group of linears: its Hessian, factored once, prunes each of its weights."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

import rac_kernels
from rac_kernels import HessianFactor, PackedTriangle, Pattern


@dataclass(frozen=True)
class LayerResult:
    """What was done to one linear; `error` is `||(W - Q) X||_F / ||W X||_F` on the calibration.

    `seconds` is its share, by size, of what its group took.
    """

    name: str
    layer: int
    shape: tuple[int, int]
    sparsity: float
    error: float
    damping: float
    attempts: int
    seconds: float

    def row(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return asdict(self) | {"shape": list(self.shape)}


def output_energy(weight: Tensor, hessian: Tensor) -> float:
    """`||W X||_F^2 = tr(W H W^T) = <W^T W, H>` from the lower triangle of H = X^T X.

    W^T W is a rank-k update of R rows: half the flops of `W H`, by the kernel that made H, which
    multiplies bf16 weights as they are. It takes the memory of a packed triangle of H's size.
    """
    features = hessian.shape[0]
    gram = rac_kernels.hessian_accumulate_(
        PackedTriangle.zeros(features, hessian.device), weight.contiguous()
    )
    energy = torch.zeros((), dtype=torch.float64, device=hessian.device)
    for start, end, rows in gram.block_rows():
        products = rows.double().mul_(hessian[start:end, :end]).tril_(start)
        energy += 2 * products.sum() - products.diagonal(start).sum()
    return float(energy)


def reconstruction_error(weight: Tensor, pruned: Tensor, hessian: Tensor) -> float:
    """`||(W - Q) X||_F / ||W X||_F` from the lower triangle of H = X^T X; 0 when W X is 0."""
    total = output_energy(weight, hessian)
    change = output_energy(weight.float() - pruned.float(), hessian)
    return max(0.0, change / total) ** 0.5 if total > 0 else 0.0


def _prune(
    weights: list[Tensor],
    hessian: Tensor,
    factor: HessianFactor | None,
    pattern: Pattern,
    solver: str,
    damping: float,
    block_size: int,
) -> list[Tensor]:
    if factor is not None:
        stacked = rac_kernels.sparsegpt(weights, factor, pattern, block_size=block_size)
        return [weight for weight, _, _ in stacked]
    if solver == "alps":
        return [rac_kernels.alps(w, hessian, pattern, damping=damping)[0] for w in weights]
    if solver == "wanda":
        diagonal = hessian.diagonal()
        return [rac_kernels.wanda(w, diagonal, pattern)[0] for w in weights]
    return [rac_kernels.magnitude(w, pattern)[0] for w in weights]


def solve_group(
    names: tuple[str, ...],
    layer: int,
    weights: list[Tensor],
    hessian: Tensor,
    pattern: Pattern,
    *,
    solver: str = "sparsegpt",
    damping: float = 0.01,
    block_size: int = 128,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Tensor], list[LayerResult]]:
    """Prune `weights` (each [R_i, C]) that share `hessian` [C, C] (float32, lower triangle).

    Returns the pruned weights in `dtype` (the checkpoint's, so that errors are those of what is
    stored) and a result for each. `solver` is one of the recipe's; `damping` is used by sparsegpt,
    which may raise it, and by alps, `block_size` by sparsegpt alone.
    """
    start = time.perf_counter()
    factor = rac_kernels.factor_hessian(hessian, damping) if solver == "sparsegpt" else None
    dense = [weight.float() for weight in weights]
    sparse = _prune(dense, hessian, factor, pattern, solver, damping, block_size)
    sparse = [weight.to(dtype, copy=True) for weight in sparse]  # views of one tensor before
    seconds = (time.perf_counter() - start) / sum(weight.numel() for weight in weights)
    used, attempts = (damping, 0) if solver == "alps" else (0.0, 0)
    if factor is not None:
        used, attempts = factor.damping, factor.attempts
        del factor  # what the errors take has its memory
    results = [
        LayerResult(
            name=name,
            layer=layer,
            shape=(before.shape[0], before.shape[1]),
            sparsity=1 - int(after.count_nonzero()) / after.numel(),
            error=reconstruction_error(before, after, hessian),
            damping=used,
            attempts=attempts,
            seconds=seconds * before.numel(),
        )
        for name, before, after in zip(names, weights, sparse, strict=True)
    ]
    return sparse, results
