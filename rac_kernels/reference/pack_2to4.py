"""2:4 packing: two values of every four and their positions, in CUTLASS's order of metadata.

The order and the choice of positions where a group has fewer than two non-zeros are those of
torch/sparse/_semi_structured_conversions.py, bit for bit.
"""

import torch
from torch import Tensor

from rac_kernels.packed import ROWS, Packed2to4


def pack_2to4(weight: Tensor, scale: Tensor | None = None) -> Packed2to4:
    """Pack ``weight`` [R, C], at most two non-zeros in every four; -0.0 becomes 0.0."""
    rows, columns = weight.shape
    size = weight.element_size()
    bits = weight.view(torch.int16 if size == 2 else torch.int8)
    zero = weight.float() == 0
    bits = bits.masked_fill(zero, 0)
    padded = -(-rows // ROWS[size]) * ROWS[size]
    bits = torch.nn.functional.pad(bits, (0, 0, 0, padded - rows))
    groups = bits.view(padded, columns // 4, 4)
    first, second = positions(groups != 0)
    values = torch.stack([groups.gather(2, p[..., None])[..., 0] for p in (first, second)], -1)
    in_word = 4 if size == 2 else 8
    nibbles = (first | second << 2).view(padded, columns // 4 // in_word, in_word)
    words = torch.zeros(nibbles.shape[:2], dtype=torch.int64, device=weight.device)
    for i in range(in_word):
        words |= nibbles[..., i] << 4 * i
    words = words.to(torch.int16 if size == 2 else torch.int32)
    metadata = torch.empty_like(words).view(-1)
    metadata[metadata_order(*words.shape, size, weight.device)] = words.view(-1)
    values = values.view(padded, columns // 2).view(weight.dtype)
    return Packed2to4(values, metadata.view_as(words), rows, scale)


def positions(nonzero: Tensor) -> tuple[Tensor, Tensor]:
    """Positions 0..3 of the two values that are kept of each group [..., 4], int64, ascending."""
    m0, m1, m3 = nonzero[..., 0], nonzero[..., 1], nonzero[..., 3]
    first = (~m0 & m1).long() | (~m0 & ~m1).long() << 1
    second = (m0 & m1 | ~m0 & ~m1 | m3).long() | (~m0 & m1 | ~m1).long() << 1
    return first, second


def metadata_order(rows: int, columns: int, size: int, device: torch.device) -> Tensor:
    """Where in the metadata each word of [rows, columns] stands: int64 [rows * columns], by rows.

    CUTLASS's reorder_meta (tools/util/include/cutlass/util/host_reorder.h): rows are dealt out in
    groups of 32 (16 for 8-bit values), each 2 x 2 block is transposed, columns come in pairs.
    """
    row = torch.arange(rows, device=device)[:, None].repeat(1, columns)
    column = torch.arange(columns, device=device).repeat(rows, 1)
    group, interweave = (32, 4) if size == 2 else (16, 2)
    row = row // group * group + row % 8 * interweave + row % group // 8
    swap = ((row % 2 == 0) & (column % 2 == 1)).long() - ((row % 2 == 1) & (column % 2 == 0)).long()
    row, column = row + swap, column - swap
    return (column // 2 * rows * 2 + row * 2 + column % 2).view(-1)


def kept_positions(packed: Packed2to4) -> Tensor:
    """Positions 0..3 of the two values of every group, int64 [R', C / 4, 2]."""
    rows, half = packed.values.shape
    order = metadata_order(
        *packed.metadata.shape, packed.values.element_size(), packed.values.device
    )
    words = packed.metadata.reshape(-1)[order].long().view(packed.metadata.shape)
    shifts = torch.arange(0, 8 * packed.metadata.element_size(), 2, device=words.device)
    return (words[..., None] >> shifts & 3).view(rows, half // 2, 2)


def first_corrupted_row(packed: Packed2to4) -> int | None:
    """First row of the metadata where the positions of a group are not two ascending ones."""
    first, second = kept_positions(packed).unbind(2)
    bad = (first >= second).any(1)
    return int(bad.nonzero()[0]) if bool(bad.any()) else None


def unpack_2to4(packed: Packed2to4) -> Tensor:
    """Unpack to the dense [R, C] of the values' dtype, the scale left out."""
    size = packed.values.element_size()
    rows, half = packed.values.shape
    index = kept_positions(packed)
    bits = packed.values.view(torch.int16 if size == 2 else torch.int8)
    dense = torch.zeros(rows, half // 2, 4, dtype=bits.dtype, device=bits.device)
    dense.scatter_(2, index, bits.view(rows, half // 2, 2))
    return dense.view(rows, 2 * half)[: packed.rows].view(packed.dtype)


def first_dense_group(weight: Tensor) -> tuple[int, int] | None:
    """Row and first column of the first four neighbours with more than two non-zeros."""
    rows, columns = weight.shape
    groups = (weight != 0).view(rows, columns // 4, 4).sum(2) > 2
    if not bool(groups.any()):
        return None
    row, group = groups.nonzero()[0].tolist()
    return row, 4 * group
