"""H = U U^T, U upper triangular: one Cholesky of the index-reversed H (method: SparseGPT)."""

from collections.abc import Callable

import torch
from torch import Tensor

from rac_kernels.factor import HessianFactor
from rac_kernels.reference.symmetrize import symmetrize_
from rac_kernels.reference.triangular_inverse import triangular_inverse

# Width of a diagonal block, factored and inverted in float64; all else is matrix multiplication. A
# GPU takes about as long for 1024 columns as for 128, and the host reads one number a block.
BLOCK_C = {"cpu": 128, "cuda": 1024}

# Makes the lower triangle of H that of U^T, and leaves what is above it; None, or the first column
# whose pivot is not positive and finite, and that pivot.
Cholesky = Callable[[Tensor], tuple[int, float] | None]
# Makes its first argument the lower triangle of its second and zeros above it.
Copy = Callable[[Tensor, Tensor], None]


def factor_hessian(
    hessian: Tensor,
    damping: float,
    max_damping: float,
    overwrite: bool,
    cholesky: Cholesky,
    copy_lower: Copy,
) -> HessianFactor:
    """Factor the lower triangle of ``hessian`` [C, C], damping more whenever that fails.

    A dead column is decoupled from all others, so the diagonal it gets (the mean) changes nothing
    else; the mean is taken over the live ones, which keeps the result free of H's scale. It is
    summed in float64: a sum of C entries leaves float32 long before they do.
    """
    original = hessian.diagonal().clone()
    dead = original == 0
    mean = (original.double().sum() / (~dead).sum().clamp(min=1)).float()
    diagonal = torch.where(dead, torch.where(mean > 0, mean, 1), original)
    shares = _damping_steps(damping, max_damping)
    tries = [(share, diagonal + share * mean, 0.0) for share in shares]
    floor = max_damping * float(diagonal.max())
    tries.append((shares[-1], tries[-1][1].clamp(min=floor), floor))

    # Overwriting, the upper triangle keeps the values that a next attempt starts from.
    if overwrite:
        work = symmetrize_(hessian)
    else:
        work = hessian.new_empty(hessian.shape)
        copy_lower(work, hessian)
    for attempt, (share, damped, raised) in enumerate(tries, start=1):
        work.diagonal().copy_(damped)
        failed = cholesky(work)
        if failed is None:
            lower = work.tril_() if overwrite else work
            return HessianFactor(lower.mT, share, attempt, dead, raised)
        if overwrite:
            symmetrize_(work.mT)  # the lower triangle again, from the upper one
        else:
            copy_lower(work, hessian)
    work.diagonal().copy_(original)
    raise ValueError(_complaint(work, shares[-1], floor, *failed))


def copy_lower_(work: Tensor, hessian: Tensor) -> None:
    """Make ``work`` [C, C] the lower triangle of ``hessian`` and zeros above it."""
    torch.tril(hessian, out=work)


def reversed_cholesky_(hessian: Tensor) -> tuple[int, float] | None:
    """Overwrite the lower triangle of ``hessian`` with that of U^T, ``H = U U^T``.

    With J the reversal of indices, ``J H J = L L^T`` gives ``U = J L J``: a Cholesky factorisation
    that starts at the last column. Left-looking over block rows b, from the last one,

        U_bb U_bb^T = H_bb - U_{b,>b} U_{b,>b}^T,    U_{<b,b} = (H_{<b,b} - ...) U_bb^-T

    held transposed, so that only the lower triangle is read or written.

    Returns:
        None, or the first column whose pivot is not positive and finite, and that pivot;
        ``hessian`` is then half overwritten.
    """
    columns = hessian.shape[0]
    width = BLOCK_C.get(hessian.device.type, BLOCK_C["cpu"])
    for start in reversed(range(0, columns, width)):
        end = min(start + width, columns)
        left, block = slice(0, start), slice(start, end)
        known = hessian[end:, block].mT @ hessian[end:, :end]  # (U_{b,>b} U_{<=b,>b}^T) [B, end]
        diagonal, rest = hessian[block, block], hessian[block, left]
        # Reversing moves the valid lower triangle to the upper one, hence the transpose.
        pivot = (diagonal.double() - known[:, block]).flip(0, 1).mT
        lower, info = torch.linalg.cholesky_ex(pivot)
        bad = ~lower.diagonal().isfinite()
        if int(info) or bool(bad.any()):
            first = int(info) or 1 + int(bad.nonzero()[0])
            return end - first, _pivot(pivot, lower, first - 1)
        upper = lower.flip(0, 1)  # U_bb
        diagonal.triu_(1).add_(upper.mT)
        rest.copy_(triangular_inverse(upper) @ rest.sub_(known[:, left]))
    return None


def _pivot(matrix: Tensor, lower: Tensor, index: int) -> float:
    """What ``matrix[index, index]`` is when its turn comes, ``lower`` being right before it."""
    before = matrix[index : index + 1, :index].mT
    row = torch.linalg.solve_triangular(lower[:index, :index].tril(), before, upper=False)
    return float(matrix[index, index] - row.square().sum())


def _damping_steps(damping: float, max_damping: float) -> list[float]:
    """List the given damping, doubled until max_damping is reached; 0 goes on with 0.01."""
    steps = [damping]
    while steps[-1] < max_damping:
        steps.append(min(2 * steps[-1] or 0.01, max_damping))
    return steps


def _complaint(hessian: Tensor, share: float, floor: float, column: int, pivot: float) -> str:
    name = f"factor_hessian: H {list(hessian.shape)}"
    if not bool(hessian.tril().isfinite().all()):
        return f"{name} holds NaN or Inf: the activations it was accumulated from were not finite"
    return (
        f"{name} is not positive definite, not even at damping {share:g} with its diagonal raised "
        f"to {floor:g}: the pivot of column {column} is {pivot:g}. No sum of x x^T is so; H is not "
        "what hessian_accumulate_ made"
    )
