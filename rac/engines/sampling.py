"""Drawing the next token from logits."""

import torch
from torch import Tensor

from rac.engines.base import Sampling


def sample(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Draw one id a row of `logits` [B, V] (float32); int64 [B] on the CPU.

    Nucleus sampling draws from the smallest set of most likely ids whose mass reaches `top_p`
    (Holtzman et al., arXiv 1904.09751).
    """
    if sampling.temperature == 0:
        return logits.argmax(-1).cpu()
    probabilities = torch.softmax(logits / sampling.temperature, -1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= sampling.top_p
        ordered = ordered.masked_fill(outside, 0)
        probabilities = torch.zeros_like(ordered).scatter(-1, order, ordered)
    # argmax of p / Exp(1) is a draw from p, with no host synchronisation
    noise = torch.empty_like(probabilities).exponential_(generator=generator)
    noise.clamp_(min=torch.finfo(noise.dtype).tiny)  # 0 / 0 would win
    return (probabilities / noise).argmax(-1).cpu()
