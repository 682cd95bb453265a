"""The count-th lowest score of row ranges of a matrix, found on the device without a host sync.

A segment is a range of rows; its scores are numbered row by row. Scores become 32-bit keys that
order as they do, and four passes over the matrix fix the key of the count-th lowest, 8 bits each:

    pass p: among the keys that begin with the p digits known so far, count the next digit (256
            bins); the digits known follow from the bins of the passes before, in every program.

Equal scores are taken by lowest index: a fifth pass counts the ties of every tile, and one program
a segment finds the index of the last tie that is taken.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rac_kernels._triton.ranking import put_first, score_keys

DIGITS = tl.constexpr(256)
PASSES = tl.constexpr(4)
LAST_INDEX = tl.constexpr(2**31 - 1)
# Scores of one program: whole rows where they are short, a part of one row where they are long.
TILE = 4096
TIES_BLOCK = 1024  # tiles whose ties one step of the search adds up


@triton.jit
def tile_indices(tile, first_row, end_row, columns, ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Rows [ROWS] and columns [BLOCK_C] of a segment's tile, and which exist [ROWS, BLOCK_C]."""
    chunks = tl.cdiv(columns, BLOCK_C)
    row = first_row + tile // chunks * ROWS + tl.arange(0, ROWS)
    col = tile % chunks * BLOCK_C + tl.arange(0, BLOCK_C)
    return row, col, (row < end_row)[:, None] & (col < columns)[None, :]


@triton.jit
def tile_keys(values_ptr, scale_ptr, row, col, exists, columns, stride, SCORE: tl.constexpr):
    """A tile's keys, the values they came from and which of them are NaN, all [ROWS, BLOCK_C]."""
    offs = row[:, None].to(tl.int64) * stride + col[None, :]
    values = tl.load(values_ptr + offs, mask=exists, other=0.0)
    scale = 1.0
    if scale_ptr is not None:
        scale = tl.load(scale_ptr + col, mask=col < columns, other=1.0)[None, :]
    keys, nan = score_keys(values, scale, SCORE)
    return keys, values, nan


@triton.jit
def known_digits(bins_ptr, count, KNOWN: tl.constexpr):
    """The first KNOWN digits of the count-th lowest key, and its rank among keys with them."""
    prefix = tl.full((), 0, tl.int32)
    bins = tl.arange(0, DIGITS)
    for known in tl.static_range(KNOWN):
        size = tl.load(bins_ptr + known * DIGITS + bins)
        digit = tl.sum((tl.cumsum(size, 0) < count).to(tl.int32), 0)
        count -= tl.sum(tl.where(bins < digit, size, 0), 0)
        prefix |= digit << (24 - 8 * known)
    return prefix, count


@triton.jit(do_not_specialize=["tiles"])
def count_digits_kernel(
    values_ptr,  # [R, C]
    scale_ptr,  # [C] or None
    keep_ptr,  # bool [R, C], rows `stride_keep` apart, or None: what it prunes goes first
    starts_ptr,  # int32 [S + 1]: segment s is rows starts[s] .. starts[s + 1]
    counts_ptr,  # int32 [S]
    bins_ptr,  # int32 [S, PASSES, DIGITS], zero before pass 0
    nan_ptr,  # int32 [1], set to 1 by a NaN in pass 0; or None
    columns,
    stride,
    stride_keep,
    tiles,  # programs a segment
    PASS: tl.constexpr,
    SCORE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Pass PASS: bins[s, PASS, d] += keys of a tile that go on with digit d."""
    segment, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    first, end = tl.load(starts_ptr + segment), tl.load(starts_ptr + segment + 1)
    row, col, exists = tile_indices(tile, first, end, columns, ROWS, BLOCK_C)
    bins_ptr += segment.to(tl.int64) * (PASSES * DIGITS)
    prefix, _ = known_digits(bins_ptr, tl.load(counts_ptr + segment), PASS)
    keys, _, nan = tile_keys(values_ptr, scale_ptr, row, col, exists, columns, stride, SCORE)
    keys = put_first(keys, keep_ptr, row[:, None].to(tl.int64) * stride_keep + col[None, :], exists)
    if nan_ptr is not None and PASS == 0:
        tl.store(nan_ptr, 1, mask=tl.max(tl.max((nan & exists).to(tl.int32), 1), 0) > 0)
    keys ^= -0x80000000  # ordered as unsigned
    if PASS > 0:
        exists &= ((keys ^ prefix) >> (32 - 8 * PASS)) == 0
    digits = tl.where(exists, (keys >> (24 - 8 * PASS)) & (DIGITS - 1), DIGITS)
    digits = tl.reshape(digits, [ROWS * BLOCK_C])
    found = tl.histogram(digits, DIGITS, mask=digits < DIGITS)
    offs = PASS * DIGITS + tl.arange(0, DIGITS)
    tl.atomic_add(bins_ptr + offs, found, mask=found > 0, sem="relaxed")


@triton.jit(do_not_specialize=["tiles"])
def count_ties_kernel(
    values_ptr,
    scale_ptr,
    keep_ptr,
    starts_ptr,
    counts_ptr,
    bins_ptr,
    ties_ptr,  # int32 [S, tiles]
    columns,
    stride,
    stride_keep,
    tiles,
    SCORE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """ties[s, tile] = how many keys of the tile equal the count-th lowest of the segment."""
    segment, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    first, end = tl.load(starts_ptr + segment), tl.load(starts_ptr + segment + 1)
    row, col, exists = tile_indices(tile, first, end, columns, ROWS, BLOCK_C)
    bins_ptr += segment.to(tl.int64) * (PASSES * DIGITS)
    prefix, _ = known_digits(bins_ptr, tl.load(counts_ptr + segment), PASSES)
    keys, _, _ = tile_keys(values_ptr, scale_ptr, row, col, exists, columns, stride, SCORE)
    offs = row[:, None].to(tl.int64) * stride_keep + col[None, :]
    keys = put_first(keys, keep_ptr, offs, exists)
    ties = exists & ((keys ^ -0x80000000) == prefix)
    tl.store(ties_ptr + tl.program_id(0), tl.sum(tl.sum(ties.to(tl.int32), 1), 0))


@triton.jit(do_not_specialize=["tiles"])
def find_last_kernel(
    values_ptr,
    scale_ptr,
    keep_ptr,
    starts_ptr,
    counts_ptr,
    bins_ptr,
    ties_ptr,  # None: all ties are taken
    selection_ptr,  # int32 [S, 2]
    columns,
    stride,
    stride_keep,
    tiles,
    SCORE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """selection[s] = the key of the count-th lowest, the index of the last tie that is taken."""
    segment = tl.program_id(0)
    bins_ptr += segment.to(tl.int64) * (PASSES * DIGITS)
    prefix, wanted = known_digits(bins_ptr, tl.load(counts_ptr + segment), PASSES)
    tl.store(selection_ptr + 2 * segment, prefix ^ -0x80000000)
    last = tl.full((), LAST_INDEX, tl.int32)
    if ties_ptr is not None:
        # The tile of the last one: the first tile up to whose end there are `wanted` ties.
        ties_ptr += segment.to(tl.int64) * tiles
        tile, seen, before = tl.full((), 0, tl.int32), 0, 0
        for start in range(0, tiles, BLOCK_T):
            offs_t = start + tl.arange(0, BLOCK_T)
            ties = tl.load(ties_ptr + offs_t, mask=offs_t < tiles, other=0)
            early = (offs_t < tiles) & (seen + tl.cumsum(ties, 0) < wanted)
            tile += tl.sum(early.to(tl.int32), 0)
            before += tl.sum(tl.where(early, ties, 0), 0)
            seen += tl.sum(ties, 0)
        first, end = tl.load(starts_ptr + segment), tl.load(starts_ptr + segment + 1)
        row, col, exists = tile_indices(tile, first, end, columns, ROWS, BLOCK_C)
        keys, _, _ = tile_keys(values_ptr, scale_ptr, row, col, exists, columns, stride, SCORE)
        offs = row[:, None].to(tl.int64) * stride_keep + col[None, :]
        keys = put_first(keys, keep_ptr, offs, exists)
        tie = (exists & ((keys ^ -0x80000000) == prefix)).to(tl.int32)
        in_row = tl.sum(tie, 1)
        rank = (tl.cumsum(in_row, 0) - in_row)[:, None] + tl.cumsum(tie, 1)
        taken = (tie > 0) & (rank <= wanted - before)
        index = (row - first)[:, None] * columns + col[None, :]
        last = tl.max(tl.max(tl.where(taken, index, -1), 1), 0)
    tl.store(selection_ptr + 2 * segment + 1, last)


@triton.jit
def is_selected(keys, index, selection_ptr, segment):
    """Which keys are among the segment's lowest, `index` being their number in it."""
    key = tl.load(selection_ptr + 2 * segment)
    last = tl.load(selection_ptr + 2 * segment + 1)
    return (keys < key) | ((keys == key) & (index <= last))


def tile_shape(columns: int) -> dict[str, int]:
    """Rows and columns of a tile: several rows only where it spans all columns."""
    block = min(triton.next_power_of_2(columns), TILE)
    return {"ROWS": TILE // block, "BLOCK_C": block}


def device_table(values: list[int], device: torch.device) -> Tensor:
    """An int32 tensor written by the device: no copy from the host for which a stream waits."""
    return torch.cat([torch.full((1,), v, dtype=torch.int32, device=device) for v in values])


def select_lowest(
    values: Tensor,
    starts: Tensor,
    counts: Tensor,
    longest: int,
    score: str,
    *,
    scale: Tensor | None = None,
    keep: Tensor | None = None,
    all_ties: bool = False,
    nan: Tensor | None = None,
) -> Tensor:
    """Find where the ``counts[s]`` lowest scores of every segment end.

    Args:
        values: [R, C] with a unit last stride.
        starts: int32 [S + 1], the segments' rows; a segment has less than 2^31 scores.
        counts: int32 [S]; no fewer than ``keep`` prunes.
        longest: rows of the longest segment, known to the host.
        score: what a score is, see :func:`score_keys`.
        scale: float32 [C], for the scores that need it.
        keep: bool [R, C] with a unit last stride, or None; what it prunes is lowest of all.
        all_ties: take all scores equal to the count-th lowest.
        nan: int32 [1], becomes 1 if a score is NaN.

    Returns:
        int32 [S, 2] for :func:`is_selected`.
    """
    columns, segments = values.shape[1], counts.shape[0]
    shape = tile_shape(columns)
    tiles = triton.cdiv(longest, shape["ROWS"]) * triton.cdiv(columns, shape["BLOCK_C"])
    new = {"dtype": torch.int32, "device": values.device}
    bins = torch.zeros(segments, PASSES.value, DIGITS.value, **new)
    ties = None if all_ties else torch.empty(segments, tiles, **new)
    selection = torch.empty(segments, 2, **new)
    sizes = (columns, values.stride(0), 0 if keep is None else keep.stride(0), tiles)
    grid, common = (segments * tiles,), (values, scale, keep, starts, counts, bins)
    options = shape | {"SCORE": score, "num_warps": 8}
    for digit in range(PASSES.value):
        count_digits_kernel[grid](*common, nan, *sizes, PASS=digit, **options)
    if ties is not None:
        count_ties_kernel[grid](*common, ties, *sizes, **options)
    find_last_kernel[(segments,)](*common, ties, selection, *sizes, BLOCK_T=TIES_BLOCK, **options)
    return selection
