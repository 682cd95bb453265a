"""One draw a row from the nucleus of softmax(logits / temperature): the definition, by sorting."""

from torch import Tensor

# exp of less counts as 0: it would not be a normal float32.
LOWEST_EXPONENT = -87.0


def nucleus_sample(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Inverse CDF, in index order, of the smallest set of most likely ids that reaches ``top_p``.

    Holtzman et al., arXiv 1904.09751, section 3.1. Weights are float32, their sums float64.

    Args:
        logits: [B, V] bf16, fp16 or fp32.
        uniform: float32 [B] in [0, 1).
        temperature: >= 0; 0: the first of the largest logits.
        top_p: in (0, 1].

    Returns:
        int64 [B]; -1 where a row holds NaN or +Inf, or nothing but -Inf.
    """
    if temperature == 0:
        largest, ids = logits.max(-1)  # NaN is the largest
        return ids.where(largest.isfinite(), -1)
    relative = logits.float()
    relative = relative - relative.amax(-1, keepdim=True)  # [B, V]; all NaN in a -1 row
    exponent = relative / temperature
    weight = exponent.exp().masked_fill(exponent < LOWEST_EXPONENT, 0).double()
    total = weight.sum(-1, keepdim=True)
    if top_p < 1:
        order = relative.sort(dim=-1, descending=True, stable=True).indices
        ordered = weight.gather(-1, order)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= top_p * total, 0)
        weight = weight.scatter(-1, order, ordered)
    cumulative = weight.cumsum(-1)
    target = uniform.double().clamp(max=1 - 2**-24)[:, None] * cumulative[:, -1:]
    ids = (cumulative <= target).sum(-1)  # the first that exceeds it: never one of weight 0
    return ids.where(total[:, 0].isfinite(), -1)
