"""Packed weights in the order in which warps read them: csrc/cuda/layout_*.h."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from rac_kernels.packed import Packed2to4, PackedBitmap

STRIP = 32  # rows that a warp takes at once
CHUNK_2TO4, CHUNK_BITMAP = 128, 64  # columns
HEADER = 20  # vectors of 16 bytes before the values of a chunk of a bitmap weight
BATCH = 1 << 24  # weights that are made dense at once
# Positions 0 and 1 in every group: mma.sp wants two that ascend, whatever the values.
PADDING = 0x44444444


@dataclass(frozen=True)
class Reordered:
    """A weight for a kernel.

    Attributes:
        weight: int32 or int16, contiguous: all chunks, strip after strip.
        slot: vectors of 16 bytes in the largest chunk.
        starts: bitmap: int32 [chunks + 1], where each begins, in vectors of 16 bytes; 2:4: None.
    """

    weight: Tensor
    slot: int
    starts: Tensor | None = None


def reorder_2to4(packed: Packed2to4) -> Reordered:
    """W [R, C] as int32 [R / 32, C / 128, 9, 32, 4], padded: vectors, lanes, words of a chunk.

    Of fp8 there are five vectors in place of nine.
    """
    rows, half = packed.values.shape
    strips, chunks = -(-rows // STRIP), -(-2 * half // CHUNK_2TO4)
    # Pairs of values of all rows and columns that chunks have.
    pair = torch.int32 if packed.values.element_size() == 2 else torch.int16
    pairs = packed.values.view(pair)
    missing = (0, chunks * CHUNK_2TO4 // 4 - pairs.shape[1], 0, strips * STRIP - rows)
    pairs = pad(pairs, missing)
    # Row 16 h + 8 j + g, pair of values 16 s + 4 k + t of its chunk: pair 2 k + j of lane 4 g + t.
    pairs = pairs.view(strips, 2, 2, 8, chunks, 4, 2, 4)  # strip h j g chunk s k t
    if pair == torch.int32:
        values = pairs.permute(0, 4, 5, 1, 3, 7, 6, 2).reshape(strips, chunks, 8, 32, 4)
        # CUTLASS's order already has a lane's word for 32 columns in its place.
        words = packed.metadata.view(torch.int32).view(half // 16, strips, 32).transpose(0, 1)
    else:
        values = pairs.permute(0, 4, 5, 3, 7, 1, 6, 2).reshape(strips, chunks, 4, 32, 8)
        values, words = values.view(torch.int32), _words_fp8(packed, strips)
    words = pad(words, (0, 0, 0, 4 * chunks - words.shape[1]), value=PADDING)
    words = words.reshape(strips, chunks, 4, 32).transpose(2, 3)
    weight = torch.cat([values, words[:, :, None]], 2).contiguous()
    return Reordered(weight, weight.shape[2] * 32)


def _words_fp8(packed: Packed2to4, strips: int) -> Tensor:
    """The metadata of fp8 in the order of 16-bit values: int32 [strips, C / 32, 32 lanes]."""
    rows, half = packed.values.shape
    # Of 64 columns and 16 rows a word for each row and 32 columns, rows g and g + 8 side by side.
    words = packed.metadata.view(half // 32, rows // 16, 32)
    words = pad(words, (0, 0, 0, 2 * strips - rows // 16), value=PADDING).view(torch.int16)
    words = words.view(half // 32, strips, 2, 8, 2, 2, 2)  # pair strip h g column j half
    words = words.permute(1, 0, 4, 3, 2, 6, 5).reshape(strips, half // 16, 64)
    return words.view(torch.int32)


def reorder_bitmap(packed: PackedBitmap) -> Reordered:
    """W [R, C] as int16, chunk after chunk, each as long as its values."""
    rows, columns = packed.shape
    batch = max(1, BATCH // (STRIP * max(columns, 1))) * STRIP
    sizes, pieces = [], []
    for first in range(0, rows, batch):
        size, piece = _chunks(_operands(packed, first, min(first + batch, rows)))
        sizes.append(size)
        pieces.append(piece)
    size = torch.cat(sizes)
    starts = pad(size.cumsum(0), (1, 0))
    if int(starts[-1]) >= 2**31:
        raise ValueError(
            f"linear_bitmap: expected a weight of less than 2^35 bytes, got {[rows, columns]}"
        )
    return Reordered(torch.cat(pieces), int(size.max()), starts.int())


def _operands(packed: PackedBitmap, first: int, last: int) -> Tensor:
    """Rows ``first`` to ``last`` as groups: the values' bits, int16 [chunks, 32, 64]."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.bitmap.device)
    bits = (packed.bitmap[first:last, :, None] >> shifts & 1).flatten(1).bool()
    dense = torch.zeros(bits.shape, dtype=torch.int16, device=bits.device)
    begin, end = packed.offsets[[first, last]].tolist()
    dense[bits] = packed.values[begin:end].view(torch.int16)
    dense = pad(dense, (0, -dense.shape[1] % CHUNK_BITMAP, 0, -len(dense) % STRIP))
    strips, chunks = dense.shape[0] // STRIP, dense.shape[1] // CHUNK_BITMAP
    # Row 16 h + 8 j + g, column 16 s + 8 k + 2 t + e: element e of lane 4 g + t, register 2 k + j.
    dense = dense.view(strips, 2, 2, 8, chunks, 4, 2, 4, 2)  # strip h j g chunk s k t e
    return dense.permute(0, 4, 5, 1, 6, 2, 3, 7, 8).reshape(strips * chunks, 32, 64)


def _chunks(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of each chunk, int64 [chunks], and their int16 contents, one after the other."""
    kept = groups != 0
    count = kept.sum((1, 2))
    size = HEADER + (count + 7) // 8
    starts = pad(size.cumsum(0), (1, 0)) * 8  # in halfwords
    out = groups.new_zeros(int(starts[-1]))
    places = torch.arange(32, device=groups.device)
    words = (kept.view(-1, 32, 2, 32).long() << places).sum(3).int()  # chunk group half
    words = words.transpose(1, 2).reshape(len(groups), 64).view(torch.int16)
    lower, total = kept[..., :32].sum(2, dtype=torch.uint8), kept.sum(2, dtype=torch.uint8)
    counts = torch.stack([lower, total], 2).view(len(groups), 64).view(torch.int16)
    header = torch.cat([words, counts], 1)  # [chunks, 160]
    out[starts[:-1, None] + torch.arange(8 * HEADER, device=groups.device)] = header
    rank = kept.view(len(groups), -1).cumsum(1) - 1
    place = starts[:-1, None] + 8 * HEADER + rank
    flat = kept.view(len(groups), -1)
    out[place[flat]] = groups.view(len(groups), -1)[flat]
    return size, out
