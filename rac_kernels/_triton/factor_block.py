"""A block of rows of L = U^T, H = U U^T, in one launch: what is serial there rules small factors.

A program takes a tile of the columns left of the diagonal block and factors that block for itself,
in memory of its own (program 0's goes into H at the end; until then others read what was there).

        +----------------+--------+     from the last STRIP of rows to the first:
        |                |        |       less what the block's rows below it take off
        | tile           | block  |       its own square is factored and inverted, in float64
   s -> |----------------|--------|       the inverse times the strip
        | done           |        |

Only the squares are serial, element after element; all else are products on tensor cores.
"""

import triton
import triton.language as tl

from rac_kernels._triton.hessian_accumulate import sum_tokens
from rac_kernels._triton.split_product import add_product, high_part

# Rows that one step of block_kernel factors; with those of the inverse, as many as a warp's lanes.
STRIP = 16


@triton.jit
def eliminate_strip(
    strip_ptr, inverse_ptr, first_column, column, pivot, BLOCK: tl.constexpr, STRIP: tl.constexpr
):
    """Factor a strip's own square, [STRIP, STRIP] with rows BLOCK apart, and invert U of it.

    Elimination of [H_ss | I] from the last row to the first, in float64. A row is a vector of a
    warp's lanes and every warp does the same: nothing is in shared memory, and a step's latency is
    that of two shuffles, a square root and two products.

    Returns:
        ``column`` and ``pivot``, vectors of equal entries [2 STRIP], int32 and float64: 1 + the
        first column whose pivot is not positive, the pivot; as they were given if there is one.
    """
    lane = tl.arange(0, 2 * STRIP)
    rows = ()
    for r in tl.static_range(STRIP):  # row r of the square, which is symmetric, and of I
        lower = tl.maximum(lane, r) * BLOCK + tl.minimum(lane, r)
        values = tl.load(strip_ptr + lower, mask=lane < STRIP, other=0.0).to(tl.float64)
        rows = rows + (tl.where(lane == STRIP + r, 1.0, values),)
    tl.debug_barrier()  # every warp has read what the first one to get there overwrites
    for j in tl.static_range(STRIP - 1, -1, -1):
        own = tl.gather(rows[j], tl.full([2 * STRIP], j, tl.int32), 0)
        first = (column == 0) & (((own > 0) & (own < float("inf"))) == 0)
        column = tl.where(first, first_column + j + 1, column)
        pivot = tl.where(first, own, pivot)
        # Row j becomes one of U^T and of the inverse; a multiple of it is taken off those above.
        done = rows[j] * tl.rsqrt(own)
        above = ()
        for r in tl.static_range(j):
            factor = tl.gather(done, tl.full([2 * STRIP], r, tl.int32), 0)
            above = above + (rows[r] - factor * done,)
        rows = above
        tl.store(strip_ptr + j * BLOCK + lane, done.to(tl.float32), mask=lane <= j)
        tl.store(inverse_ptr + j * STRIP + lane - STRIP, done.to(tl.float32), mask=lane >= STRIP)
    return column, pivot


@triton.jit
def subtract_product(values, a, b):
    """Take a [M, K] @ b [K, N] off values; a sum of its own, as tensor cores round towards zero."""
    high = high_part(b)
    return values - add_product(tl.zeros_like(values), a, high, b - high)


@triton.jit
def take_off_panel(
    h_ptr, below_ptr, own_ptr, start, j0, size, depth, stride,
    BLOCK: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Less L_kb^T L_k for the panel's rows k below: the block to ``own_ptr``, the tile in place."""
    r, c, end = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :], start + size
    taken = sum_tokens(
        below_ptr, None, 0, depth, start, start, end, stride,
        BLOCK_K, BLOCK, BLOCK, PRECISION, False,
    )  # fmt: skip
    inside = (r < size) & (c < size)
    lower = tl.maximum(r, c).to(tl.int64) * stride + start + tl.minimum(r, c)  # symmetric
    values = tl.load(h_ptr + lower, mask=inside, other=0.0) - taken
    tl.store(own_ptr + r * BLOCK + c, tl.where(inside, values, (r == c).to(tl.float32)))
    taken = sum_tokens(
        below_ptr, None, 0, depth, start, j0, end, stride,
        BLOCK_K, BLOCK, BLOCK_J, PRECISION, False,
    )  # fmt: skip
    offs_j = j0 + tl.arange(0, BLOCK_J)[None, :]
    mask = (r < size) & (offs_j < start)
    ptrs = h_ptr + r.to(tl.int64) * stride + offs_j
    tl.store(ptrs, tl.load(ptrs, mask=mask, other=0.0) - taken, mask=mask)


@triton.jit(do_not_specialize=["size", "depth"])
def block_kernel(
    h_ptr,  # H [C, C], float32
    diagonal_ptr,  # [blocks, BLOCK, BLOCK], float32: gets L_bb
    scratch_ptr,  # [programs, BLOCK + STRIP, BLOCK], float32
    failed_ptr,  # float64 [2]: gets 1 + the first column whose pivot is not positive, the pivot
    start,
    size,  # of the block: BLOCK, or less at the end of the matrix
    depth,  # the panel's rows below the block
    stride,
    BLOCK: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STRIP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Block row b of L: its diagonal block, and a tile of the columns left of that."""
    program, end = tl.program_id(0), start + size
    j0 = program * BLOCK_J
    inverse_ptr = scratch_ptr + program.to(tl.int64) * (BLOCK + STRIP) * BLOCK
    own_ptr = inverse_ptr + STRIP * BLOCK  # the diagonal block, symmetric; its lower half gets L_bb
    own_ptr = tl.where(program == 0, diagonal_ptr + start.to(tl.int64) * BLOCK, own_ptr)
    below_ptr = h_ptr + end.to(tl.int64) * stride
    h_ptr += start.to(tl.int64) * stride
    c, offs_j = tl.arange(0, BLOCK)[None, :], j0 + tl.arange(0, BLOCK_J)
    mask_j = (offs_j < start)[None, :]
    take_off_panel(
        h_ptr, below_ptr, own_ptr, start, j0, size, depth, stride,
        BLOCK, BLOCK_J, BLOCK_K, PRECISION,
    )  # fmt: skip
    lane = tl.arange(0, 2 * STRIP)
    column = tl.load(failed_ptr + lane * 0).to(tl.int32)
    pivot = tl.load(failed_ptr + lane * 0 + 1)
    offs_s = tl.arange(0, STRIP)
    for step in range(0, BLOCK // STRIP):
        tl.debug_barrier()  # all that follows reads what other threads of the program wrote
        first = BLOCK - STRIP * (step + 1)
        s = first + offs_s
        square_ptrs = own_ptr + s[:, None] * BLOCK + c
        tile_ptrs = h_ptr + s[:, None].to(tl.int64) * stride + offs_j[None, :]
        mask = (s < size)[:, None] & mask_j
        square = tl.load(square_ptrs)  # [STRIP, BLOCK]
        tile = tl.load(tile_ptrs, mask=mask, other=0.0)  # [STRIP, BLOCK_J]
        for k0 in range(first + STRIP, BLOCK, STRIP):  # what the block's rows below take off
            k = k0 + offs_s
            factor = tl.load(own_ptr + k[None, :] * BLOCK + s[:, None])  # L[k, s]^T
            done = tl.load(own_ptr + k[:, None] * BLOCK + c, mask=c < first + STRIP, other=0.0)
            square = subtract_product(square, factor, done)
            k_ptrs = h_ptr + k[:, None].to(tl.int64) * stride + offs_j[None, :]
            done = tl.load(k_ptrs, mask=(k < size)[:, None] & mask_j, other=0.0)
            tile = subtract_product(tile, factor, done)
        tl.store(square_ptrs, square, mask=c < first + STRIP)
        tl.debug_barrier()
        column, pivot = eliminate_strip(
            own_ptr + first * (BLOCK + 1), inverse_ptr, start + first, column, pivot, BLOCK, STRIP
        )
        tl.debug_barrier()
        inverse = tl.load(inverse_ptr + offs_s[:, None] * STRIP + offs_s[None, :])
        tl.store(
            square_ptrs, -subtract_product(tl.zeros_like(square), inverse, square), mask=c < first
        )
        tl.store(tile_ptrs, -subtract_product(tl.zeros_like(tile), inverse, tile), mask=mask)
    found = tl.where(lane == 0, column.to(tl.float64), pivot)
    tl.store(failed_ptr + lane, found, mask=lane < tl.where(program == 0, 2, 0))
