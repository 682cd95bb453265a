"""H = U U^T, U upper triangular: one Cholesky of the index-reversed H (method: SparseGPT)."""

import torch
from torch import Tensor

from rac_kernels.factor import HessianFactor


def factor_hessian(
    hessian: Tensor, damping: float, max_damping: float, overwrite: bool
) -> HessianFactor:
    """Factor the lower triangle of ``hessian`` [C, C], damping more whenever that fails.

    A dead column is decoupled from all others, so the diagonal it gets (the mean) changes nothing
    else; the mean is taken over the live ones, which keeps the result free of H's scale.
    """
    diagonal = hessian.diagonal().clone()
    dead = diagonal == 0
    mean = diagonal[~dead].mean() if not bool(dead.all()) else diagonal.new_ones(())
    diagonal[dead] = mean
    attempts = 0
    for share in _damping_steps(damping, max_damping):
        attempts += 1
        upper, _ = reversed_cholesky(hessian, diagonal + share * mean)
        if upper is not None:
            return HessianFactor(upper, share, attempts, dead)
    floor = max_damping * float(diagonal.max())
    upper, column = reversed_cholesky(hessian, (diagonal + share * mean).clamp(min=floor))
    if upper is None:
        _fail(hessian, share, floor, column)
    return HessianFactor(upper, share, attempts + 1, dead, floor)


def reversed_cholesky(hessian: Tensor, diagonal: Tensor) -> tuple[Tensor | None, int]:
    """U of ``H = U U^T`` with H's diagonal replaced, or None and the column whose pivot failed.

    With J the reversal of indices, ``J H J = L L^T`` gives ``U = J L J``. Reversing moves the valid
    lower triangle of H to the upper one, hence the transpose.
    """
    reversed_hessian = hessian.flip(0, 1)
    reversed_hessian.diagonal().copy_(diagonal.flip(0))
    lower, info = torch.linalg.cholesky_ex(reversed_hessian.mT)
    pivots = lower.diagonal()
    if int(info) == 0 and bool(pivots.isfinite().all()):
        return lower.flip(0, 1), -1
    order = int(info) if int(info) > 0 else 1 + int((~pivots.isfinite()).nonzero()[0])
    return None, hessian.shape[0] - order


def _damping_steps(damping: float, max_damping: float) -> list[float]:
    """List the given damping, doubled until max_damping is reached; 0 goes on with 0.01."""
    steps = [damping]
    while steps[-1] < max_damping:
        steps.append(min(2 * steps[-1] or 0.01, max_damping))
    return steps


def _fail(hessian: Tensor, share: float, floor: float, column: int) -> None:
    if not bool(hessian.tril().isfinite().all()):
        raise ValueError(
            f"factor_hessian: H {list(hessian.shape)} holds NaN or Inf; the activations it was "
            "accumulated from were not finite"
        )
    raise ValueError(
        f"factor_hessian: H {list(hessian.shape)} is not positive definite, not even at damping "
        f"{share:g} with its diagonal raised to {floor:g}: the pivot of column {column} is not "
        "positive. A sum of x x^T cannot be so: H is not what hessian_accumulate_ made"
    )
