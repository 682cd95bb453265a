"""Packing of bitmaps in C++."""

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, PARALLEL, load, threads
from rac_kernels.packed import TAIL, PackedBitmap


def pack_bitmap(weight: Tensor) -> PackedBitmap:
    """The non-zeros of ``weight`` [R, C], bf16 or fp16 with a unit last stride, on the CPU."""
    rows, columns = weight.shape
    bitmap = torch.empty(rows, -(-columns // 8), dtype=torch.uint8)
    offsets = torch.empty(rows + 1, dtype=torch.int64)
    where = weight.data_ptr(), weight.stride(0), bitmap.data_ptr(), offsets.data_ptr()
    sizes = rows, columns, 1 if weight.numel() < PARALLEL else threads()
    count = load(CPU).bitmap_count(*where, 0, *sizes)
    values = torch.empty(count + TAIL, dtype=weight.dtype)
    values[count:] = 0
    load(CPU).bitmap_pack(*where, values.data_ptr(), *sizes)
    return PackedBitmap(values, bitmap, offsets, columns)


def unpack_bitmap(packed: PackedBitmap) -> Tensor:
    """The dense [R, C]."""
    rows, columns = packed.shape
    dense = torch.empty(rows, columns, dtype=packed.dtype)
    packed = packed.map(Tensor.contiguous)
    unpack_rows(packed, slice(0, rows), dense)
    return dense


def unpack_rows(packed: PackedBitmap, rows: slice, dense: Tensor) -> None:
    """Rows of a contiguous `packed` to ``dense`` [rows, C]."""
    parts = packed.bitmap[rows], packed.offsets[rows], packed.values
    load(CPU).bitmap_unpack(
        dense.data_ptr(),
        dense.shape[1],
        *(part.data_ptr() for part in parts),
        *dense.shape,
        1 if dense.numel() < PARALLEL else threads(),
    )
