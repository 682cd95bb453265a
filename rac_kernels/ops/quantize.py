"""Rows to FP8: validate, choose an implementation, call it."""

import importlib

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import check_rows, refuse
from rac_kernels._choice import choose, native_cpu, needs_backward, triton_usable
from rac_kernels.reference.quantize_fp8_rows import quantize_fp8_rows as reference

IMPLEMENTATIONS = {"reference", "native", "triton"}


def quantize_fp8_rows(
    x: Tensor, *, scale_dtype: torch.dtype = torch.float32, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Round each row of ``x`` to e4m3 (nearest, ties to even) by the scale of its largest value.

    Args:
        x: bf16, fp16 or fp32 [..., C] with a unit last stride.
        scale_dtype: float32 or bf16, to which a scale is rounded before it is used.
        impl: "auto", "reference", "native" (CPU), "triton" (GPU; in a CUDA graph once it has run
            outside of one). All round alike, bit for bit. The last two have no backward: auto takes
            the reference where one is needed.

    Returns:
        fp8_e4m3 [..., C] and float32 [...], the scale max |x| / 448: x is nearly their product. The
        scale of a row of zeros, or with a NaN, is 1. A NaN stays one; of a row with an infinity,
        whose scale is infinite, the infinite values become NaN and the others 0.

    Raises:
        ValueError, TypeError: wrong dtype, shape or strides, or ``impl`` cannot run.

    Source: FP8 formats for deep learning, arXiv 2209.05433, section 3: E4M3.
    """
    op = "quantize_fp8_rows"
    check_rows(op, "x", x)
    if scale_dtype not in (torch.float32, torch.bfloat16):
        refuse(op, "scale_dtype torch.float32 or torch.bfloat16", scale_dtype)
    backward = needs_backward(x)
    name = choose(
        op,
        impl,
        IMPLEMENTATIONS,
        backward or native_cpu(x),
        triton=backward or triton_usable(x),
        auto=("native",) if x.is_cpu else ("triton",),
    )
    if name == "reference":
        return reference(x, scale_dtype)
    x = x if x.ndim == 2 else x.contiguous()
    if name == "native":
        return _native.quantize_fp8_rows(x, scale_dtype)
    kernels = importlib.import_module("rac_kernels._triton.quantize_fp8_rows")
    return kernels.quantize_fp8_rows(x, scale_dtype)
