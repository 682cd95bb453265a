"""Rows rounded to FP8 (e4m3fn) with a scale each."""

import torch
from torch import Tensor

LARGEST = 448.0  # of e4m3


def quantize_fp8_rows(x: Tensor, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``x / scale`` [..., C] in e4m3 and ``scale`` = max |x| / 448, float32 [...]."""
    x = x.float()
    largest = torch.full((), LARGEST, device=x.device)  # a tensor: a GPU multiplies by 1 / 448.0
    scale = (x.abs().amax(-1) / largest).to(scale_dtype).float()
    scale = torch.where(scale > 0, scale, 1.0)
    return (x / scale[..., None]).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale
