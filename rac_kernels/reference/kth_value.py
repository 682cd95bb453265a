"""The k-th smallest of a long list, several times faster than torch's kthvalue on a CPU."""

import torch
from torch import Tensor

LONG = 1 << 13  # entries from which it pays
SHIFT = 18  # of a float's 32 bits: sign, exponent and 5 bits of fraction name its bin


def kth_value(scores: Tensor, k: int) -> Tensor:
    """The ``k``-th smallest (1 <= k <= L) of each row of ``scores`` [K, L], without NaN, [K, 1].

    Floats order as the integers that their bits are, but for the sign. Counting a list by leading
    bits finds the bin that holds the k-th smallest, a few percent of the list; the rest is done on
    those.
    """
    if scores.shape[0] != 1 or scores.shape[1] < LONG or scores.device.type != "cpu":
        return scores.kthvalue(k, dim=1, keepdim=True).values
    values = scores[0].float()
    bits = values.view(torch.int32)
    bins = (bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> SHIFT
    bins += 1 << (31 - SHIFT)
    reached = torch.bincount(bins).cumsum(0)  # up to the end of each bin
    own = int(torch.searchsorted(reached, k))
    before = int(reached[own - 1]) if own else 0
    return values[bins == own].kthvalue(k - before, keepdim=True).values[None].to(scores.dtype)
