"""Rows rounded to FP8 on a GPU: a program takes a row, the second time from a cache."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rac_kernels._triton.capture import batch_and_stride
from rac_kernels._triton.rmsnorm_capture import row_tile

LEAST_ROUNDER = tl.constexpr((127 - 6 + 20) << 23 | 1 << 22)  # 1.5 * 2^14, as float32's bits
INFINITE = tl.constexpr(0x7F800000)
MAX_BLOCK = 16384  # columns at once: more of them spill


@triton.jit
def magnitude_e4m3(x):
    """Exponent and fraction of e4m3 next to x, which is >= 0 and at most 448; ties to even.

    1.5 * 2^20 times x's power of two, or 2^-6, is added to x: three bits of its fraction stay.
    """
    power = (x.to(tl.int32, bitcast=True) & INFINITE) + ((20 << 23) | (1 << 22))
    power = tl.maximum(power, LEAST_ROUNDER)
    added = x + power.to(tl.float32, bitcast=True)
    return ((power - LEAST_ROUNDER) >> 20) + (added.to(tl.int32, bitcast=True) - power)


@triton.jit
def quantize_fp8_rows_kernel(
    x_ptr,  # [rows, C]
    values_ptr,  # uint8 [rows, C]
    scale_ptr,  # fp32 [rows]
    stride_xr,
    columns,
    BFLOAT16_SCALE: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A program is a row: scale = max |x| / 448, values = (x / scale).to(e4m3)."""
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * stride_xr
    values_ptr += row * columns
    largest = 0  # as bits; above INFINITE: a NaN
    for first in range(0, columns, BLOCK_C):
        offs_c = first + tl.arange(0, BLOCK_C)
        x = tl.load(x_ptr + offs_c, mask=offs_c < columns, other=0.0).to(tl.float32)  # [BLOCK_C]
        bits = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        largest = tl.maximum(largest, tl.max(bits, axis=0))
    scale = tl.div_rn(largest.to(tl.float32, bitcast=True), 448.0)
    if BFLOAT16_SCALE:
        scale = scale.to(tl.bfloat16).to(tl.float32)
    scale = tl.where((largest <= INFINITE) & (scale > 0), scale, 1.0)
    tl.store(scale_ptr + row, scale)
    for first in range(0, columns, BLOCK_C):
        offs_c = first + tl.arange(0, BLOCK_C)
        x = tl.load(x_ptr + offs_c, mask=offs_c < columns, other=0.0).to(tl.float32)  # [BLOCK_C]
        quotient = tl.div_rn(tl.abs(x), scale + tl.zeros_like(x))
        nan = quotient != quotient
        magnitude = magnitude_e4m3(tl.where(quotient > 448.0, 448.0, quotient))
        sign = (x.to(tl.int32, bitcast=True) >> 24) & 0x80
        values = tl.where(nan, 0x7F, magnitude) | sign
        tl.store(values_ptr + offs_c, values.to(tl.uint8), mask=offs_c < columns)


def quantize_fp8_rows(x: Tensor, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """E4m3 [..., C] and scales [...] of x, contiguous [..., C] or [T, C]; in a CUDA graph too."""
    rows, stride = batch_and_stride(x)
    tile = row_tile(min(x.shape[-1], MAX_BLOCK))
    values = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    if rows:
        with torch.cuda.device_of(x):
            quantize_fp8_rows_kernel[(rows,)](
                x,
                values,
                scale,
                stride_xr=stride,
                columns=x.shape[-1],
                BFLOAT16_SCALE=scale_dtype == torch.bfloat16,
                BLOCK_C=tile["BLOCK_D"],
                num_warps=tile["num_warps"],
            )
    return values.view(torch.float8_e4m3fn), scale
