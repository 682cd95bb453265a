"""SparseGPT (arXiv 2301.00774, algorithm 1) with one Cholesky and no inverse, left-looking."""

from collections.abc import Callable

import torch
from torch import Tensor

from rac_kernels.pattern import Pattern
from rac_kernels.reference.select_mask import lowest
from rac_kernels.reference.triangular_inverse import triangular_inverse

# values [R, B] (updated in place), inverse [B, B], keep [R, B] (filled, or given when pattern is
# None), pattern, compat -> the block's loss.
SolveBlock = Callable[[Tensor, Tensor, Tensor, Pattern | None, bool], Tensor | float]


def solve_block(
    values: Tensor, inverse: Tensor, keep: Tensor, pattern: Pattern | None, compat: bool
) -> Tensor:
    """Prune one block of B columns in place and return its loss ``sum_ij e_ij^2`` (float64).

    ``inverse`` is U_bb^-1, the diagonal block of R. The mask goes to ``keep``; pattern None means
    that ``keep`` is given.
    """
    scale = inverse.diagonal()  # R_jj
    loss = torch.zeros((), dtype=torch.float64, device=values.device)
    if pattern is not None and not pattern.structured:
        keep.copy_(~_pruned_in_block(values.square() / scale.square(), pattern, compat))
    for j in range(values.shape[1]):
        if pattern is not None and pattern.structured and j % pattern.m == 0:
            group = slice(j, j + pattern.m)
            scores = values[:, group].square() / scale[group].square()
            keep[:, group] = ~lowest(scores, pattern.n)
        error = torch.where(keep[:, j], 0, values[:, j]) / scale[j]  # e_j [R]
        values[:, j:] -= error[:, None] * inverse[j, j:]
        values[:, j].masked_fill_(~keep[:, j], 0)
        loss += error.double().square().sum()
    return loss


def _pruned_in_block(scores: Tensor, pattern: Pattern, compat: bool) -> Tensor:
    """Unstructured choice over the whole block [R, B]: exact, or the published threshold rule."""
    if not compat:
        return lowest(scores.reshape(1, -1), pattern.count(scores.numel())).view_as(scores)
    rank = min(int(scores.numel() * pattern.sparsity), scores.numel() - 1)
    return scores <= scores.flatten().kthvalue(rank + 1).values


def sparsegpt(
    weights: list[Tensor],
    upper: Tensor,
    dead: Tensor,
    pattern: Pattern | None,
    *,
    block_size: int,
    compat: bool,
    masks: list[Tensor] | None,
    solve: SolveBlock = solve_block,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Prune ``weights``, each [R_i, C], block by block; see :func:`rac_kernels.sparsegpt`.

    With ``D = W_final - W`` on the columns before block b, the block enters its solve as
    ``W_b - D_{<b} U_{<b,b} U_bb^-1``; it reads D and writes only itself. The last two factors are
    common to all weights; the bits of each result are those of its solve alone.
    """
    any_dead, device = bool(dead.any()), upper.device
    keeps = [torch.empty(w.shape, dtype=torch.bool, device=device) for w in weights]
    if masks is not None:
        keeps = [mask.clone(memory_format=torch.contiguous_format) for mask in masks]
    deltas = [torch.empty(w.shape, dtype=torch.float32, device=device) for w in weights]  # D
    losses = [torch.zeros((), dtype=torch.float64, device=device) for _ in weights]
    for start in range(0, upper.shape[0], block_size):
        block = slice(start, start + block_size)
        inverse = triangular_inverse(upper[block, block])  # [B, B]
        carry = upper[:start, block] @ inverse  # [start, B]
        for weight, delta, keep, loss in zip(weights, deltas, keeps, losses, strict=True):
            original = weight[:, block].float()  # [R, B]
            if any_dead:
                original = original.masked_fill(dead[block], 0)
            values = torch.addmm(original, delta[:, :start], carry, alpha=-1)  # [R, B]
            loss += solve(values, inverse, keep[:, block], pattern, compat)
            torch.sub(values, original, out=delta[:, block])
    for weight, delta in zip(weights, deltas, strict=True):
        delta.add_(weight)  # a pruned weight is w - w = 0
        if any_dead:
            delta.masked_fill_(dead, 0)
    pruned = [delta.to(weight.dtype) for weight, delta in zip(weights, deltas, strict=True)]
    return list(zip(pruned, keeps, losses, strict=True))
