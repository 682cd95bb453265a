"""Which entries to keep: exact counts, ties broken by the lowest index."""

import torch
from torch import Tensor

from rac_kernels.pattern import Pattern
from rac_kernels.reference.kth_value import kth_value


def lowest(scores: Tensor, count: int) -> Tensor:
    """Mark the ``count`` lowest of each row of ``scores`` [K, L]; equal scores, lowest index first.

    Equal to ``scores.argsort(stable=True)[:, :count]`` as a mask, found by selection, not sorting.
    """
    if count == 0 or scores.numel() == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if count == scores.shape[1]:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = kth_value(scores, count)  # [K, 1]
    chosen = scores < threshold
    ties = scores == threshold
    wanted = count - chosen.sum(1, keepdim=True)  # [K, 1] how many of the ties are taken
    if bool((ties.sum(1, keepdim=True) != wanted).any()):
        ties &= ties.cumsum(1) <= wanted
    return chosen | ties


def select_mask(scores: Tensor, pattern: Pattern, per: str, block_size: int) -> Tensor:
    """Keep-mask [R, C] of ``scores`` [R, C]; n:m looks at groups of m along a row, whatever per."""
    rows, columns = scores.shape
    if pattern.structured:
        pruned = lowest(scores.reshape(-1, pattern.m), pattern.n).view(rows, columns)
    elif per == "row":
        pruned = lowest(scores, pattern.count(columns))
    elif per == "layer":
        pruned = lowest(scores.reshape(1, -1), pattern.count(scores.numel())).view(rows, columns)
    else:
        blocks = [block.reshape(1, -1) for block in scores.split(block_size, dim=1)]
        parts = [lowest(b, pattern.count(b.numel())).view(rows, -1) for b in blocks]
        pruned = torch.cat(parts, dim=1)
    return ~pruned
