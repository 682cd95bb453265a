"""SparseGPT (arXiv 2301.00774, algorithm 1) with one Cholesky and no inverse, left-looking."""

import torch
from torch import Tensor

from rac_kernels.pattern import Pattern
from rac_kernels.reference.select_mask import lowest
from rac_kernels.reference.triangular_inverse import triangular_inverse


def solve_block(
    values: Tensor,
    inverse: Tensor,
    keep: Tensor,
    pattern: Pattern | None,
    compat: bool,
    grow: bool,
) -> Tensor:
    """Prune one block of B columns in place and return its loss ``sum_ij e_ij^2`` (float64).

    ``values`` is [R, B], ``inverse`` [B, B] is U_bb^-1, the diagonal block of R. The mask goes to
    ``keep`` [R, B]. Pattern None means that ``keep`` is given, ``grow`` that what it prunes stays
    pruned and counts towards the pattern.
    """
    scale = inverse.diagonal()  # R_jj
    loss = torch.zeros((), dtype=torch.float64, device=values.device)
    if pattern is not None and not pattern.structured:
        scores = values.square() / scale.square()
        keep.copy_(~_pruned_in_block(scores, pattern, compat, ~keep if grow else None))
    for j in range(values.shape[1]):
        if pattern is not None and pattern.structured and j % pattern.m == 0:
            group = slice(j, j + pattern.m)
            scores = values[:, group].square() / scale[group].square()
            if grow:
                scores.masked_fill_(~keep[:, group], -1)
                keep[:, group] &= ~lowest(scores, pattern.n)
            else:
                keep[:, group] = ~lowest(scores, pattern.n)
        error = torch.where(keep[:, j], 0, values[:, j]) / scale[j]  # e_j [R]
        values[:, j:] -= error[:, None] * inverse[j, j:]
        values[:, j].masked_fill_(~keep[:, j], 0)
        loss += error.double().square().sum()
    return loss


def _pruned_in_block(
    scores: Tensor, pattern: Pattern, compat: bool, pruned: Tensor | None
) -> Tensor:
    """Unstructured choice over the whole block [R, B]: exact, or the published threshold rule.

    Those in ``pruned`` are the first to go, however many they are.
    """
    size, least = scores.numel(), 0
    if pruned is not None:
        scores, least = scores.masked_fill(pruned, -1), int(pruned.sum())
    if not compat:
        count = max(pattern.count(size), least)
        return lowest(scores.reshape(1, -1), count).view_as(scores)
    count = max(min(int(size * pattern.sparsity), size - 1) + 1, least)
    return scores <= scores.flatten().kthvalue(count).values


def sparsegpt(
    weights: list[Tensor],
    upper: Tensor,
    dead: Tensor,
    pattern: Pattern | None,
    *,
    block_size: int,
    compat: bool,
    masks: list[Tensor] | None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Prune ``weights``, each [R_i, C], block by block; see :func:`rac_kernels.sparsegpt`.

    With ``D = W_final - W`` on the columns before block b, the block enters its solve as
    ``W_b - D_{<b} U_{<b,b} U_bb^-1``; it reads D and writes only itself. The last two factors are
    common to all weights; the bits of each result are those of its solve alone.
    """
    any_dead, device = bool(dead.any()), upper.device
    grow = pattern is not None and masks is not None
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
            loss += solve_block(values, inverse, keep[:, block], pattern, compat, grow)
            torch.sub(values, original, out=delta[:, block])
    for weight, delta in zip(weights, deltas, strict=True):
        delta.add_(weight)  # a pruned weight is w - w = 0
        if any_dead:
            delta.masked_fill_(dead, 0)
    pruned = [delta.to(weight.dtype) for weight, delta in zip(weights, deltas, strict=True)]
    return list(zip(pruned, keeps, losses, strict=True))
