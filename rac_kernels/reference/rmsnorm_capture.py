"""RMSNorm as transformers' Llama, Qwen2 and Qwen3 blocks compute it, its output captured."""

import torch
from torch import Tensor

from rac_kernels.capture import Ring
from rac_kernels.reference.capture import capture_


def rmsnorm_capture(x: Tensor, weight: Tensor, eps: float, ring: Ring | None) -> Tensor:
    """``y = weight * round(x / sqrt(mean(x^2) + eps))`` for x [..., D], weight [D]."""
    wide = x.float()
    variance = wide.square().mean(-1, keepdim=True)
    y = weight * (wide * torch.rsqrt(variance + eps)).to(x.dtype)
    if ring is not None:
        capture_(y, ring)
    return y
