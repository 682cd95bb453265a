"""Linears with packed weights: unpack, then multiply; and with dense ones."""

import torch
from torch import Tensor

from rac_kernels.packed import Packed2to4, PackedBitmap
from rac_kernels.reference.pack_2to4 import unpack_2to4
from rac_kernels.reference.pack_bitmap import unpack_bitmap
from rac_kernels.reference.quantize_fp8_rows import quantize_fp8_rows


def linear_2to4(x: Tensor, packed: Packed2to4, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` [..., R] of x [..., C], summed in float32, rounded once."""
    return _linear(x, unpack_2to4(packed).float(), packed.scale, bias)


def linear_2to4_fp8(x: Tensor, packed: Packed2to4, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` [..., R] with x [..., C] rounded to e4m3 row by row, summed in float32."""
    values, x_scale = quantize_fp8_rows(x, torch.float32)
    y = linear_2to4(values.float(), packed, None) * x_scale[..., None]
    if bias is not None:
        y = y + bias.float()
    return y.to(x.dtype)


def linear_bitmap(x: Tensor, packed: PackedBitmap, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` [..., R] of x [..., C], summed in float32, rounded once."""
    return _linear(x, unpack_bitmap(packed).float(), None, bias)


def linear_dense(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` [..., R] of x [..., C], summed in float32, rounded once."""
    return _linear(x, weight.float(), None, bias)


def _linear(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    y = torch.nn.functional.linear(x.float(), weight)
    if scale is not None:
        y = y * scale
    if bias is not None:
        y = y + bias.float()
    return y.to(x.dtype)
