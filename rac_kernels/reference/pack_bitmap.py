"""Bitmap packing of unstructured sparse weights."""

import torch
from torch import Tensor

from rac_kernels.packed import TAIL, PackedBitmap


def pack_bitmap(weight: Tensor) -> PackedBitmap:
    """The non-zeros of ``weight`` [R, C] (-0.0 is zero) and a bit for each weight."""
    rows, columns = weight.shape
    nonzero = weight != 0
    bits = torch.nn.functional.pad(nonzero, (0, -columns % 8)).unflatten(1, (-(-columns // 8), 8))
    places = torch.arange(8, dtype=torch.uint8, device=weight.device)
    bitmap = (bits.to(torch.uint8) << places).sum(2, dtype=torch.uint8)
    offsets = torch.zeros(rows + 1, dtype=torch.int64, device=weight.device)
    torch.cumsum(nonzero.sum(1), 0, out=offsets[1:])
    values = torch.nn.functional.pad(weight[nonzero], (0, TAIL))
    return PackedBitmap(values, bitmap, offsets, columns)


def unpack_bitmap(packed: PackedBitmap) -> Tensor:
    """The dense [R, C]."""
    places = torch.arange(8, dtype=torch.uint8, device=packed.bitmap.device)
    bits = packed.bitmap[..., None] >> places & 1
    nonzero = bits.flatten(1)[:, : packed.columns].bool()
    dense = torch.zeros(packed.shape, dtype=packed.dtype, device=packed.values.device)
    dense[nonzero] = packed.values[:-TAIL]
    return dense
