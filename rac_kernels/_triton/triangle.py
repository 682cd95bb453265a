"""Tiles of a lower triangle, in the order in which a persistent grid should take them."""

import triton
import triton.language as tl

from rac_kernels.triangle import BLOCK_D

PACKED_ROWS = tl.constexpr(BLOCK_D)  # rows of a block row of PackedTriangle


@triton.jit
def triangle_index(t):
    """(i, j), i >= j >= 0, of entry t >= 0 of a triangle, row after row; exact below 2^40."""
    t = t.to(tl.int64)
    i = ((tl.sqrt(8.0 * t.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int64)
    i = tl.where(i * (i + 1) // 2 > t, i - 1, i)  # rounding is off by one row at most
    i = tl.where((i + 1) * (i + 2) // 2 <= t, i + 1, i)
    return i, t - i * (i + 1) // 2


@triton.jit
def tile_origin(t, features, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, GROUP: tl.constexpr):
    """First row and first column of tile t, int32.

    Squares of max(BLOCK_I, BLOCK_J) are walked in groups of GROUP block rows, column by column in a
    group, so that the tiles that run at one time read few columns of x.
    """
    SQUARE: tl.constexpr = max(BLOCK_I, BLOCK_J)
    ACROSS: tl.constexpr = SQUARE // BLOCK_J
    TILES: tl.constexpr = ACROSS * (SQUARE // BLOCK_I)
    square = t // TILES
    part = t % TILES
    row, _ = triangle_index(square)
    first = row // GROUP * GROUP
    within = square - first * (first + 1) // 2
    height = tl.minimum((features + SQUARE - 1) // SQUARE - first, GROUP)
    rectangle = height * first  # squares left of those on and below the group's diagonal
    below, across = triangle_index(tl.maximum(within - rectangle, 0))
    row = first + tl.where(within < rectangle, within % height, below)
    column = tl.where(within < rectangle, within // height, first + across)
    i0 = row.to(tl.int32) * SQUARE + part // ACROSS * BLOCK_I
    return i0, column.to(tl.int32) * SQUARE + part % ACROSS * BLOCK_J


@triton.jit
def block_row(h_ptr, i0, features, stride_h, PACKED: tl.constexpr):
    """Where row 0, column 0 would be, the row stride, and how many columns row i0 has."""
    columns = tl.cast(features, tl.int64)
    if PACKED:
        index = (i0 // PACKED_ROWS).to(tl.int64)
        columns = tl.minimum((index + 1) * PACKED_ROWS, columns)
        before = index * (index + 1) // 2 * PACKED_ROWS * PACKED_ROWS
        return h_ptr + before - index * PACKED_ROWS * columns, columns, columns
    else:
        return h_ptr, tl.cast(stride_h, tl.int64), columns
