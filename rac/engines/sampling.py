"""Drawing the next token from logits."""

from torch import Tensor

from rac.engines.base import Sampling
from rac_kernels import nucleus_sample


def sample(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """Draw one id a row of `logits` [B, V]; int64 [B] on their device, without waiting for it.

    Greedy at temperature 0; else a draw from the nucleus (Holtzman et al., arXiv 1904.09751), where
    `uniform` [B], in [0, 1), says. -1 where a row holds NaN or +Inf, or nothing but -Inf: whoever
    reads the ids has to look for it.
    """
    if sampling.temperature == 0:
        largest, ids = logits.max(-1)  # NaN is the largest
        return ids.where(largest.isfinite(), -1)
    return nucleus_sample(logits, uniform, temperature=sampling.temperature, top_p=sampling.top_p)
