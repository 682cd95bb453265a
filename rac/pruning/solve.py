"""One group of linears: its Hessian, factored once, prunes each of its weights."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

import rac_kernels
from rac_kernels import HessianFactor, Pattern


@dataclass(frozen=True)
class LayerResult:
    """What was done to one linear; `error` is `||(W - Q) X||_F / ||W X||_F` on the calibration."""

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


def output_energy(weight: Tensor, hessian: Tensor, block_size: int = 256) -> float:
    """`||W X||_F^2 = tr(W H W^T)` from the full symmetric H = X^T X.

    Blocks off H's diagonal come in equal pairs: each is taken once and counts twice.
    """
    energy = 0.0
    for start in range(0, weight.shape[1], block_size):
        block = slice(start, start + block_size)
        product = weight[:, block] @ hessian[block, : start + block_size]  # [R, start + B]
        product *= weight[:, : start + block_size]
        product[:, :start] *= 2
        energy += float(product.sum(dtype=torch.float64))
    return energy


def reconstruction_error(weight: Tensor, pruned: Tensor, hessian: Tensor) -> float:
    """`||(W - Q) X||_F / ||W X||_F` from the full symmetric H = X^T X; 0 when W X is 0."""
    total = output_energy(weight, hessian)
    change = output_energy(weight - pruned, hessian)
    return max(0.0, change / total) ** 0.5 if total > 0 else 0.0


def _prune(
    weight: Tensor, factor: HessianFactor | None, diagonal: Tensor, solver: str, **options: Any
) -> Tensor:
    pattern = options["pattern"]
    if solver == "sparsegpt":
        return rac_kernels.sparsegpt(weight, factor, pattern, block_size=options["block_size"])[0]
    if solver == "wanda":
        return rac_kernels.wanda(weight, diagonal, pattern)[0]
    return rac_kernels.magnitude(weight, pattern)[0]


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
    stored) and a result for each. `hessian` is overwritten.
    """
    start = time.perf_counter()
    rac_kernels.symmetrize_(hessian)
    factor = rac_kernels.factor_hessian(hessian, damping) if solver == "sparsegpt" else None
    shared = (time.perf_counter() - start) / len(names)
    pruned, results = [], []
    for name, weight in zip(names, weights, strict=True):
        start = time.perf_counter()
        options = {"pattern": pattern, "block_size": block_size}
        sparse = _prune(weight.float(), factor, hessian.diagonal(), solver, **options).to(dtype)
        seconds = shared + time.perf_counter() - start
        pruned.append(sparse)
        results.append(
            LayerResult(
                name=name,
                layer=layer,
                shape=(weight.shape[0], weight.shape[1]),
                sparsity=float((sparse == 0).float().mean()),
                error=reconstruction_error(weight.float(), sparse.float(), hessian),
                damping=factor.damping if factor else 0.0,
                attempts=factor.attempts if factor else 0,
                seconds=seconds,
            )
        )
    return pruned, results
