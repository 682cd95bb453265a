"""Linears with packed weights in C++."""

import weakref

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, load
from rac_kernels.packed import Packed2to4, PackedBitmap

_VALUES = {torch.bfloat16: 0, torch.float16: 1, torch.int8: 2, torch.float8_e4m3fn: 3}
_LANES = 16  # what rows of x are padded to
# Multiply-adds from which a second thread pays for being woken.
_PARALLEL = 1 << 18
# Row-major copies of metadata; an entry goes with its weight.
_codes: weakref.WeakKeyDictionary[Packed2to4, Tensor] = weakref.WeakKeyDictionary()


def row_major_codes(packed: Packed2to4) -> Tensor:
    """The metadata by rows: uint8 [R, C / 8], a byte for eight columns, made once for a weight.

    A 32-row tile of the metadata lies in C / 32 pieces, R' / 32 * 128 bytes apart, each in another
    page of memory; by rows it streams beside the values, for 1/16 of the dense weight's bytes more.
    """
    codes = _codes.get(packed)
    if codes is None:
        rows, columns = packed.shape
        codes = torch.empty(rows, columns // 8, dtype=torch.uint8)
        load(CPU).row_major_codes(
            packed.metadata.data_ptr(),
            codes.data_ptr(),
            rows,
            packed.values.shape[0],
            columns,
            packed.values.element_size(),
            torch.get_num_threads(),
        )
        _codes[packed] = codes
    return codes


def linear_2to4(x: Tensor, packed: Packed2to4, bias: Tensor | None, many: bool) -> Tensor:
    """``x W^T + bias`` of x [T, C], T > 0, on the CPU; ``many`` takes the kernel for many tokens."""
    return _linear(x, packed, row_major_codes(packed), None, packed.scale, bias, many)


def linear_bitmap(x: Tensor, packed: PackedBitmap, bias: Tensor | None, many: bool) -> Tensor:
    """``x W^T + bias`` of x [T, C], T > 0, on the CPU; ``many`` takes the kernel for many tokens."""
    return _linear(x, packed, packed.bitmap, packed.offsets, None, bias, many)


def _linear(
    x: Tensor,
    packed: Packed2to4 | PackedBitmap,
    codes: Tensor,
    offsets: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    many: bool,
) -> Tensor:
    rows, columns = packed.shape
    x32 = x.float()
    if columns % _LANES:
        x32 = torch.nn.functional.pad(x32, (0, -columns % _LANES))
    x32 = x32.contiguous()
    scale, bias = (None if t is None else t.float().contiguous() for t in (scale, bias))
    y = torch.empty(x.shape[0], rows)

    def run(x32: Tensor, y: Tensor, many: bool) -> None:
        small = x32.shape[0] * rows * columns < _PARALLEL
        load(CPU).linear_sparse(
            many,
            x32.data_ptr(),
            y.data_ptr(),
            packed.values.data_ptr(),
            codes.data_ptr(),
            *(0 if t is None else t.data_ptr() for t in (offsets, scale, bias)),
            x32.shape[0],
            rows,
            columns,
            x32.shape[1],
            _VALUES[packed.dtype],
            1 if small else torch.get_num_threads(),
        )

    run(x32, y, many)
    return y.to(x.dtype)
