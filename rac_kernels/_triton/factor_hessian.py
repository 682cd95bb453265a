"""H = U U^T in place, reading and writing the lower triangle: L = U^T is what ends there.

Block rows are done from the last to the first, in panels of rows:

          columns <= b
        +------+----+          block_kernel      L_b = U_bb^-1 (H_b - what the panel's rows below
        |      |    |                            take off), columns <= b; one launch a block
   b -> |------|    | panel    update_kernel     H -= L_p^T L_p on all rows above panel p: nearly
        |------|----|                            all of the flops, the rank-k update's own product
        | done      |

A pivot that is not positive makes NaN of what follows. The first one's column and value are in
`failed`, which is read once, at the end.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rac_kernels._triton import tuning
from rac_kernels._triton.factor_block import STRIP, block_kernel
from rac_kernels._triton.hessian_accumulate import sum_tokens
from rac_kernels._triton.triangle import triangle_index


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
    columns, stride, device = hessian.shape[0], hessian.stride(0), hessian.device
    config = tuning.pick_factor(device)
    block, side, width = config.block, config.block_i, config.panel_of(columns)
    programs = max(triton.cdiv(columns, config.block_j), 1)
    diagonal = torch.empty(triton.cdiv(columns, block), block, block, device=device)
    scratch = torch.empty(programs, block + STRIP, block, device=device)
    failed = torch.zeros(2, dtype=torch.float64, device=device)
    at_once = tuning.count_programs(device, 1)

    def factor(start: int, size: int, depth: int) -> None:
        # Every program factors the block: a second round of them would take as long as the first.
        block_j = config.block_j
        if triton.cdiv(start, block_j) > at_once:
            block_j *= 2
        block_kernel[(max(triton.cdiv(start, block_j), 1),)](
            hessian,
            diagonal,
            scratch,
            failed,
            start,
            size,
            depth,
            stride,
            BLOCK=block,
            BLOCK_J=block_j,
            BLOCK_K=config.block_k,
            STRIP=STRIP,
            PRECISION=config.precision,
            num_warps=config.block_warps,
            num_stages=config.num_stages,
        )

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
        for panel in reversed(range(0, columns, width)):
            end = min(panel + width, columns)
            for start in reversed(range(panel, end, block)):
                size = min(block, end - start)
                factor(start, size, end - start - size)
            if panel > 0:
                update(0, panel, panel, end - panel)
    _place_diagonal(hessian, diagonal)
    column, pivot = failed.tolist()
    return (int(column) - 1, pivot) if column else None


def triangular(count: int) -> int:
    """Tiles in `count` rows of a triangle of tiles."""
    return count * (count + 1) // 2


def _place_diagonal(hessian: Tensor, diagonal: Tensor) -> None:
    """Copy the lower triangles of L_bb [blocks, B, B] into the diagonal blocks of ``hessian``."""
    block, stride = diagonal.shape[1], hessian.stride(0)
    whole, rest = divmod(hessian.shape[0], block)
    lower = torch.ones(block, block, dtype=torch.bool, device=hessian.device).tril()
    if whole:
        into = hessian.as_strided((whole, block, block), (block * (stride + 1), stride, 1))
        into.copy_(torch.where(lower, diagonal[:whole], into))
    if rest:
        into = hessian[-rest:, -rest:]
        into.copy_(torch.where(lower[:rest, :rest], diagonal[-1, :rest, :rest], into))
