"""ALPS (arXiv 2406.07831): ADMM finds the support, conjugate gradients the weights on it.

All of it runs on H scaled to a unit diagonal, ``S^-1 H S^-1`` with ``S_jj = sqrt(H_jj)``, and the
weight scaled by S. Every function here but :func:`alps` takes and returns such scaled values.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rac_kernels.reference.symmetrize import symmetrize_

Select = Callable[[Tensor], Tensor]  # scores [R, C] -> keep-mask bool [R, C]

RHO = 0.1  # the first penalty of the ADMM
CHECK_EVERY = 3  # iterations between two looks at the support
REFINE_STEPS = 10  # of conjugate gradients


def alps(
    weight: Tensor, hessian: Tensor, damping: float, max_iterations: int, select: Select
) -> tuple[Tensor, Tensor, Tensor]:
    """Prune ``weight`` [R, C] by the lower triangle of ``hessian``; see :func:`rac_kernels.alps`.

    ``change`` is W - D throughout, so what is not touched comes back bit for bit.
    """
    normal, scale, dead = normalize(hessian, damping)
    dense = weight.float() * ~dead * scale
    keep, change = admm(dense, normal, max_iterations, select)
    refine_(change, keep, normal)
    loss = ((change @ normal) * change).sum(dtype=torch.float64)
    pruned = (weight - change.div_(scale)).masked_fill_(~keep | dead, 0)
    return pruned.to(weight.dtype), keep, loss


def normalize(hessian: Tensor, damping: float) -> tuple[Tensor, Tensor, Tensor]:
    """``S^-1 (H + damping * mean(diag H) I) S^-1`` [C, C], S's diagonal [C], dead columns [C].

    Damped as :func:`factor_hessian` does: dead columns get the mean of the live ones.
    """
    normal = symmetrize_(hessian.clone())
    diagonal = hessian.diagonal().double()
    dead = diagonal == 0
    mean = diagonal.sum() / (~dead).sum().clamp(min=1)
    diagonal = torch.where(dead, torch.where(mean > 0, mean, 1), diagonal) + damping * mean
    scale = diagonal.sqrt().float()
    normal /= scale
    normal /= scale[:, None]
    normal.diagonal().fill_(1)
    return normal, scale, dead


def admm(
    dense: Tensor, normal: Tensor, max_iterations: int, select: Select
) -> tuple[Tensor, Tensor]:
    """Keep-mask [R, C] of the sparse D that ADMM ends with, and ``W - D`` [R, C].

    With the dual U scaled by rho, one iteration of the paper's equation 3 (D sparse, B dense) is

        B = (W H + rho (D - U)) (H + rho I)^-1 = W + rho (D - U - W) (H + rho I)^-1
        D = the largest of Z = B + U,     U = Z - D

    so Z and its mask are all the state. Rho grows by how much of the support has changed since the
    last look at it. A support that stands still ends the search: one that is as it was at the last
    look and an iteration ago, for it may also go round in a circle.
    """
    keep = before = select(dense.abs())
    kept = float(keep.sum())
    z, rho, ratio = dense, RHO, 0.0  # ratio: old rho / rho, times which U follows rho; U = 0 first
    resolvent = make_resolvent(normal, rho, dense.shape[0])
    for iteration in range(1, max_iterations + 1):
        sparse = z * keep
        dual = (z - sparse).mul_(ratio)
        z = resolvent(sparse.sub_(dual).sub_(dense)).add_(dense).add_(dual)
        last, keep = keep, select(z.abs())
        ratio = 1.0
        if iteration % CHECK_EVERY == 0:
            changed = float((keep != before).sum())
            if changed < 0.5 and torch.equal(keep, last):
                break
            growth = 1.3 if changed > 0.1 * kept else 1.2 if changed > 0.005 * kept else 1.1
            rho, ratio, before = rho * growth, 1 / growth, keep
            resolvent = make_resolvent(normal, rho, dense.shape[0])
    return keep, dense - z * keep


def make_resolvent(normal: Tensor, rho: float, rows: int) -> Callable[[Tensor], Tensor]:
    """The map ``T -> rho T (H + rho I)^-1`` for T [rows, C].

    By Cholesky: rho takes about a dozen values, and C^3/3 flops for each are fewer than what an
    eigendecomposition of H in its place would take. For many rows one product with the inverse is
    faster than two triangular solves.

    Raises:
        ValueError: ``H + rho I`` is not positive definite, so H is no sum of x x^T.
    """
    shifted = normal.clone()
    shifted.diagonal().add_(rho)
    lower, info = torch.linalg.cholesky_ex(shifted)
    if int(info):
        raise ValueError(
            f"alps: H {list(normal.shape)} is not positive definite: with its diagonal scaled to 1 "
            f"and {rho:g} added, the pivot of column {int(info) - 1} is not positive. No sum of "
            "x x^T is so; H is not what hessian_accumulate_ made"
        )
    if 2 * rows > normal.shape[0]:
        inverse = torch.cholesky_inverse(lower).mul_(rho)
        return lambda values: values @ inverse
    upper = lower.mT

    def solve(values: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(upper, values, upper=True, left=False)
        return torch.linalg.solve_triangular(lower, half, upper=False, left=False).mul_(rho)

    return solve


def refine_(change: Tensor, keep: Tensor, normal: Tensor) -> None:
    """Take steps of conjugate gradients in ``change`` where ``keep``, for every row on its own.

    Row w minimises ``(w H w^T)`` over its kept entries; H's unit diagonal is the preconditioner.
    Each step lowers that error, or leaves it where it cannot be lowered.
    """
    residual = (change @ normal).mul_(keep)
    direction = residual.clone()
    energy = torch.linalg.vecdot(residual, residual)[:, None]  # [R, 1]
    for _ in range(REFINE_STEPS):
        product = (direction @ normal).mul_(keep)
        curvature = torch.linalg.vecdot(direction, product)[:, None]
        step = torch.where(curvature > 0, energy / curvature, 0)
        change.addcmul_(step, direction, value=-1)
        residual.addcmul_(step, product, value=-1)
        before, energy = energy, torch.linalg.vecdot(residual, residual)[:, None]
        direction.mul_(torch.where(before > 0, energy / before, 0)).add_(residual)
