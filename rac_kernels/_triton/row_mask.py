"""Masks of a share of each row: the row is read once and searched in registers.

    row:  [ BLOCK_C scores | TAIL_C scores | padding ]     two powers of two cover it

Sorting would cost log^2 steps and counting digits a histogram a digit; narrowing down the key below
which `count` scores lie takes about nine compare-and-count passes over registers.
"""

import triton
import triton.language as tl

from rac_kernels._triton.ranking import search_key
from rac_kernels._triton.selection import tile_keys

MAX_ROW = 32768  # columns: 64 a thread at 16 warps
ROW_TILE = 2048  # scores of a program: several rows where they are short
CHUNK = 2048  # columns read again at a time, to find ties
# A tail of 16384 columns is at least as wide: what 16 warps hold of 4096 is laid out otherwise than
# the rest, which Triton 3.6 pays with 84 bytes of spills.
LEAST_TAIL = 8192


@triton.jit
def flag_nan(nan_ptr, nan):
    """Write 1 if anything of [BLOCK_R, BLOCK_C] is NaN."""
    tl.store(nan_ptr, 1, mask=tl.max(tl.max(nan.to(tl.int32), 1), 0) > 0)


@triton.jit
def write_tile(mask_ptr, pruned_ptr, offs, exists, pruned, values):
    """The keep-mask, and the values with zeros where they are asked for."""
    tl.store(mask_ptr + offs, pruned == 0, mask=exists)
    if pruned_ptr is not None:
        zero = tl.zeros_like(values)
        tl.store(pruned_ptr + offs, tl.where(pruned, zero, values), mask=exists)


@triton.jit
def row_keys(
    scores_ptr, scale_ptr, nan_ptr, row, start, rows, columns, stride,
    SCORE: tl.constexpr, SHIFT: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Keys of the columns from `start` on, 2^31 - 1 where there are none."""
    col = start + tl.arange(0, BLOCK_C)
    exists = (row < rows)[:, None] & (col < columns)[None, :]
    keys, _, nan = tile_keys(scores_ptr, scale_ptr, row, col, exists, columns, stride, SCORE)
    if nan_ptr is not None:
        flag_nan(nan_ptr, nan & exists)
    return tl.where(exists, keys >> SHIFT, 0x7FFFFFFF)


@triton.jit
def write_row(
    scores_ptr, mask_ptr, pruned_ptr, row, start, rows, columns, stride, pruned,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Results of the columns from `start` on; values are read again, registers are for the keys."""
    col = start + tl.arange(0, BLOCK_C)[None, :]
    row = row[:, None].to(tl.int64)
    exists = (row < rows) & (col < columns)
    values = 0.0
    if pruned_ptr is not None:
        values = tl.load(scores_ptr + row * stride + col, mask=exists, other=0.0)
    write_tile(mask_ptr, pruned_ptr, row * columns + col, exists, pruned, values)


@triton.jit(do_not_specialize=["rows", "count"])
def rows_kernel(
    scores_ptr,  # [R, C], rows `stride` apart
    scale_ptr,  # [C] or None
    mask_ptr,  # bool [R, C]
    pruned_ptr,  # dtype of scores [R, C], or None
    nan_ptr,  # int32 [1]
    rows, columns, stride, count,
    SCORE: tl.constexpr, SHIFT: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, TAIL_C: tl.constexpr, CHUNK_C: tl.constexpr,
):  # fmt: skip
    """Prune the count lowest of every row; TAIL_C may be 0."""
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    head = row_keys(
        scores_ptr, scale_ptr, nan_ptr, row, 0, rows, columns, stride, SCORE, SHIFT, BLOCK_C
    )
    tail = head
    if TAIL_C:
        tail = row_keys(
            scores_ptr, scale_ptr, nan_ptr, row, BLOCK_C, rows, columns, stride,
            SCORE, SHIFT, TAIL_C,
        )  # fmt: skip
    key, ties = search_key(head, tail, count, columns, TAIL_C)
    pruned = head < key[:, None]
    write_row(scores_ptr, mask_ptr, pruned_ptr, row, 0, rows, columns, stride, pruned, BLOCK_C)
    if TAIL_C:
        pruned = tail < key[:, None]
        write_row(
            scores_ptr, mask_ptr, pruned_ptr, row, BLOCK_C, rows, columns, stride, pruned, TAIL_C
        )
    ties = tl.where(row < rows, ties, 0)
    if tl.max(ties, 0) > 0:
        tl.debug_barrier()  # what follows may be written by other threads
        for start in range(0, columns, CHUNK_C):
            keys = row_keys(
                scores_ptr, scale_ptr, None, row, start, rows, columns, stride,
                SCORE, SHIFT, CHUNK_C,
            )  # fmt: skip
            tie = (keys == key[:, None]).to(tl.int32)
            taken = (tie > 0) & (tl.cumsum(tie, 1) <= ties[:, None])
            ties -= tl.sum(tie, 1)
            offs = row[:, None].to(tl.int64) * columns + start + tl.arange(0, CHUNK_C)[None, :]
            tl.store(mask_ptr + offs, tie == 0, mask=taken)
            if pruned_ptr is not None:
                tl.store(pruned_ptr + offs, 0.0, mask=taken)


def row_blocks(columns: int) -> dict[str, int]:
    """Two powers of two that cover a row with less padding than one would; TAIL_C may be 0."""
    block, tail = max(triton.next_power_of_2(columns), 16), 0
    rest = columns - block // 2
    if block > MAX_ROW // 2 or (block > 1024 and rest <= block // 4):
        block, tail = block // 2, max(triton.next_power_of_2(rest), 16)
        if block == MAX_ROW // 2:
            tail = max(tail, LEAST_TAIL)
    rows = max(ROW_TILE // block, 1)
    return {
        "BLOCK_R": rows,
        "BLOCK_C": block,
        "TAIL_C": tail,
        "CHUNK_C": min(block, CHUNK),
        "num_warps": min(max(rows * block // 1024, 4), 16),
    }
