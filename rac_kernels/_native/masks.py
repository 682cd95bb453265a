"""Masks in C++ and CUDA."""

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, CUDA, DTYPES, load, threads
from rac_kernels.pattern import Pattern


def select_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """Keep-mask of an n:m pattern for contiguous ``scores`` [R, C] on the CPU or a GPU."""
    keep = torch.empty_like(scores, dtype=torch.bool)
    sizes = {"groups": scores.numel() // pattern.m, "n": pattern.n, "m": pattern.m}
    addresses = {"scores": scores.data_ptr(), "keep": keep.data_ptr()}
    dtype = DTYPES[scores.dtype]
    if scores.device.type == "cpu":
        load(CPU).select_mask(**addresses, **sizes, dtype=dtype, threads=threads())
        return keep
    with torch.cuda.device(scores.device):
        stream = torch.cuda.current_stream().cuda_stream
        load(CUDA).select_mask(**addresses, **sizes, dtype=dtype, stream=stream)
    return keep
