"""H = U U^T in place, reading and writing the lower triangle: L = U^T is what ends there.

Block rows are done from the last to the first, in panels of rows:

          columns <= b
        +------+----+          diagonal_kernel   L_bb and U_bb^-1, in float64
        |      |    |          panel_kernel      L_{b,<b} = U_bb^-1 H_{b,<b}
   b -> |------|    | panel    update_kernel     H -= L_b^T L_b on the panel's rows above b,
        |------|----|                            H -= L_p^T L_p on all rows above panel p: nearly
        | done      |                            all of the flops, the rank-k update's own product

A pivot that is not positive makes NaN of what follows. The first one's column and value are in
`failed`, which is read once, at the end.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rac_kernels._triton import tuning
from rac_kernels._triton.hessian_accumulate import sum_tokens
from rac_kernels._triton.split_product import add_product, high_part
from rac_kernels._triton.triangle import triangle_index


@triton.jit(do_not_specialize=["size"])
def diagonal_kernel(
    h_ptr,  # H [C, C], float32
    inverse_ptr,  # [BLOCK, BLOCK], float32: gets U_bb^-1
    failed_ptr,  # float64 [2]: gets 1 + the first column whose pivot is not positive, the pivot
    start,
    size,
    stride,
    BLOCK: tl.constexpr,
):
    """Factor block b and invert it: elimination of [H_bb | I] from the last column to the first."""
    r = tl.arange(0, BLOCK)[:, None]
    c = tl.arange(0, 2 * BLOCK)[None, :]
    h_ptr += start.to(tl.int64) * stride + start
    inside = (r < size) & (c < size)
    lower = tl.maximum(r, c).to(tl.int64) * stride + tl.minimum(r, c)  # symmetric
    work = tl.load(h_ptr + lower, mask=inside, other=0.0).to(tl.float64)  # [BLOCK, 2 BLOCK]
    work = tl.where(inside, work, ((c == r) | (c == r + BLOCK)).to(tl.float64))
    failed = tl.load(failed_ptr).to(tl.int32)
    for step in range(0, BLOCK):
        j = BLOCK - 1 - step
        row = tl.sum(tl.where(r == j, work, 0.0), 0)  # [2 BLOCK]
        pivot = tl.sum(tl.where(tl.arange(0, 2 * BLOCK) == j, row, 0.0), 0)
        column = tl.sum(tl.where(c == j, work, 0.0), 1)  # [BLOCK]
        positive = (pivot > 0) & (pivot < float("inf"))
        first = (failed == 0) & (positive == 0)
        tl.store(failed_ptr + 1, pivot, mask=first)
        failed = tl.where(first, start + j + 1, failed)
        # Row j becomes one of U_bb^T and of the inverse; a multiple of it is taken off those above.
        done = (row * (1.0 / tl.sqrt(pivot)))[None, :]
        factor = (column * (1.0 / tl.sqrt(pivot)))[:, None]
        work = tl.where(r == j, done, tl.where(r < j, work - factor * done, work))
    tl.store(h_ptr + r.to(tl.int64) * stride + c, work.to(tl.float32), mask=inside & (c <= r))
    tl.store(inverse_ptr + r * BLOCK + (c - BLOCK), work.to(tl.float32), mask=c >= BLOCK)
    tl.store(failed_ptr, failed.to(tl.float64))


@triton.jit(do_not_specialize=["size"])
def panel_kernel(
    h_ptr,
    inverse_ptr,
    start,
    size,
    stride,
    BLOCK: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    """H[b, j] = U_bb^-1 H[b, j] for a tile of the columns left of the diagonal, in place."""
    offs = tl.arange(0, BLOCK)
    offs_j = tl.program_id(0) * BLOCK_J + tl.arange(0, BLOCK_J)
    mask = (offs < size)[:, None] & (offs_j < start)[None, :]
    ptrs = h_ptr + (start + offs)[:, None].to(tl.int64) * stride + offs_j[None, :]
    rest = tl.load(ptrs, mask=mask, other=0.0)  # [BLOCK, BLOCK_J]
    inverse = tl.load(inverse_ptr + offs[:, None] * BLOCK + offs[None, :])  # [BLOCK, BLOCK]
    high = high_part(rest)
    solved = tl.zeros((BLOCK, BLOCK_J), tl.float32)
    solved = add_product(solved, inverse, high, rest - high)
    tl.store(ptrs, solved, mask=mask)


@triton.jit(do_not_specialize=["first_tile", "depth"])
def update_kernel(
    h_ptr,
    first_tile,  # the tiles of the triangle before the first row
    end,  # rows first .. end
    source,  # subtract L[k, .]^T L[k, .] for k = source .. source + depth
    depth,
    stride,
    BLOCK_I: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """H[i, j] -= sum_k L[k, i] L[k, j] on and below the diagonal; a program, a square tile."""
    i, j = triangle_index(tl.program_id(0) + first_tile)
    i0, j0 = (i * BLOCK_I).to(tl.int32), (j * BLOCK_I).to(tl.int32)
    rows = h_ptr + source.to(tl.int64) * stride
    product = sum_tokens(
        rows, None, 0, depth, i0, j0, end, stride, BLOCK_K, BLOCK_I, BLOCK_I, PRECISION, False
    )
    offs_i, offs_j = i0 + tl.arange(0, BLOCK_I), j0 + tl.arange(0, BLOCK_I)
    mask = (offs_i < end)[:, None] & (offs_j[None, :] <= offs_i[:, None])
    ptrs = h_ptr + offs_i[:, None].to(tl.int64) * stride + offs_j[None, :]
    tl.store(ptrs, tl.load(ptrs, mask=mask, other=0.0) - product, mask=mask)


def reversed_cholesky_(hessian: Tensor) -> tuple[int, float] | None:
    """Overwrite the lower triangle of ``hessian`` [C, C] with that of U^T, ``H = U U^T``.

    Returns:
        None, or the first column whose pivot is not positive and finite, and that pivot;
        ``hessian`` is then half overwritten.
    """
    columns, stride = hessian.shape[0], hessian.stride(0)
    config = tuning.pick_factor(hessian.device)
    block, side = config.block, config.block_i
    inverse = torch.empty(block, block, dtype=torch.float32, device=hessian.device)
    failed = torch.zeros(2, dtype=torch.float64, device=hessian.device)

    def update(first: int, end: int, source: int, depth: int) -> None:
        before, tiles = triangular(first // side), triangular(triton.cdiv(end, side))
        update_kernel[(tiles - before,)](
            hessian,
            before,
            end,
            source,
            depth,
            stride,
            BLOCK_I=side,
            BLOCK_K=config.block_k,
            PRECISION=config.precision,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )

    with torch.cuda.device_of(hessian):
        for panel in reversed(range(0, columns, config.panel)):
            panel_end = min(panel + config.panel, columns)
            for start in reversed(range(panel, panel_end, block)):
                size = min(block, columns - start)
                diagonal_kernel[(1,)](
                    hessian, inverse, failed, start, size, stride, BLOCK=block, num_warps=8
                )
                if start > 0:
                    panel_kernel[(triton.cdiv(start, config.block_j),)](
                        hessian, inverse, start, size, stride, BLOCK=block, BLOCK_J=config.block_j
                    )
                if start > panel:
                    update(panel, start, start, size)
            if panel > 0:
                update(0, panel, panel, panel_end - panel)
    column, pivot = failed.tolist()
    return (int(column) - 1, pivot) if column else None


def triangular(count: int) -> int:
    """Tiles in `count` rows of a triangle of tiles."""
    return count * (count + 1) // 2
