"""Rows rounded to FP8 in C++."""

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, DTYPES, PARALLEL, load, threads


def quantize_fp8_rows(x: Tensor, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """E4m3 [..., C] and scales [...] of x, contiguous [..., C] or [T, C], on the CPU."""
    columns = x.shape[-1]
    values = torch.empty(x.shape, dtype=torch.float8_e4m3fn)
    scale = torch.empty(x.shape[:-1])
    load(CPU).quantize_fp8_rows(
        x.data_ptr(),
        columns if x.is_contiguous() else x.stride(0),
        values.data_ptr(),
        scale.data_ptr(),
        scale.numel(),
        columns,
        DTYPES[x.dtype],
        scale_dtype == torch.bfloat16,
        1 if x.numel() < PARALLEL else threads(),
    )
    return values, scale
