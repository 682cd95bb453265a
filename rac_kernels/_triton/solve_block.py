"""One SparseGPT block: the mask, all columns' updates, the errors, in one launch.

    a program: BLOCK_R rows, columns in steps of STEP, in registers [BLOCK_R, SUB >= STEP]

        done  | step |           of the step's columns, one after the other:
       errors |      |             e_j = pruned ? w_j / R_jj : 0;   w_k -= e_j R_jk  for k > j
      --------+------+--------   before it, at once:  w -= errors R[done, step]

A step's width is a multiple of m. A column is taken out of registers by a masked sum: indexing
registers at run time would put them into memory.
"""

import triton
import triton.language as tl

from rac_kernels._triton.ranking import FIRST, rank_of, score_keys
from rac_kernels._triton.selection import is_selected
from rac_kernels._triton.split_product import add_product, high_part


@triton.jit(do_not_specialize=["tiles"])
def solve_block_kernel(
    values_ptr,  # [R, B], float32: the block before its solve
    inverse_ptr,  # U_bb^-1 [B, B]
    errors_ptr,  # [R, B], scratch
    weight_ptr,  # [R, C]
    dead_ptr,  # bool [C]
    keep_ptr,  # bool [R, C]: read for "given" and GROW, else written
    delta_ptr,  # [R, C], float32: gets W_final - W
    pruned_ptr,  # [R, C], dtype of weight: gets W_final
    losses_ptr,  # float64 [tiles of all segments]: get the sums of e^2
    starts_ptr,  # int32 [S + 1]: rows of the segments
    selection_ptr,  # int32 [S, 2], for RULE "selected"
    start,  # the block's first column
    width,
    stride_weight,
    stride_out,  # of keep, delta and pruned
    tiles,  # programs a segment
    RULE: tl.constexpr,  # "given", "selected" or "n:m"
    GROW: tl.constexpr,  # for the last two: what keep prunes stays so and is the first to go
    N: tl.constexpr,
    M: tl.constexpr,
    STEP: tl.constexpr,
    SUB: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Prune a block's columns; see the top of this file."""
    segment, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    first_row, end_row = tl.load(starts_ptr + segment), tl.load(starts_ptr + segment + 1)
    # Offsets within the tile are int32: where the tile begins is added to the pointers.
    row0 = first_row + tile * BLOCK_R
    offs_r = tl.arange(0, BLOCK_R)
    mask_r = (row0 + offs_r < end_row)[:, None]
    values_ptr += row0.to(tl.int64) * width
    errors_ptr += row0.to(tl.int64) * width
    weight_ptr += row0.to(tl.int64) * stride_weight + start
    out = row0.to(tl.int64) * stride_out + start
    offs = tl.arange(0, SUB)
    loss = tl.zeros((BLOCK_R,), tl.float64)
    for first in range(0, width, STEP):
        col = first + offs
        mask_c = (offs < STEP) & (col < width)
        mask = mask_r & mask_c[None, :]
        block_offs = offs_r[:, None] * width + col[None, :]
        out_offs = offs_r[:, None] * stride_out + col[None, :]
        w = tl.load(values_ptr + block_offs, mask=mask, other=0.0)  # [BLOCK_R, SUB]
        scale = tl.load(inverse_ptr + col * (width + 1), mask=mask_c, other=1.0)  # R_jj
        pruned = tl.zeros((BLOCK_R, SUB), tl.int1)
        if GROW or RULE == "given":
            pruned = tl.load(keep_ptr + out + out_offs, mask=mask, other=1) == 0
        if RULE == "selected":
            keys, _ = score_keys(w, scale[None, :], "obs")
            if GROW:
                keys = tl.where(pruned, FIRST, keys)
            index = tile * BLOCK_R * width + block_offs
            pruned = is_selected(keys, index, selection_ptr, segment)
        for done in range(0, first, STEP):
            done_r = done + offs
            errors = tl.load(
                errors_ptr + offs_r[:, None] * width + done_r[None, :],
                mask=mask_r & (offs < STEP)[None, :],
                other=0.0,
            )
            push = tl.load(
                inverse_ptr + done_r[:, None] * width + col[None, :],
                mask=(offs < STEP)[:, None] & mask_c[None, :],
                other=0.0,
            )
            high = high_part(push)
            w = add_product(w, -errors, high, push - high)
        for j in range(0, tl.minimum(STEP, width - first)):
            if RULE == "n:m":  # noqa: SIM102
                if j % M == 0:
                    keys, _ = score_keys(w, scale[None, :], "obs")
                    if GROW:
                        keys = tl.where(pruned, FIRST, keys)
                    group = ((offs >= j) & (offs < j + M))[None, :]
                    pruned |= group & (rank_of(keys, offs, j, j + M) < N)
            own = inverse_ptr + (first + j) * width
            taken = tl.sum(tl.where(pruned & (offs == j)[None, :], w, 0.0), 1)
            error = tl.div_rn(taken, tl.load(own + first + j))  # e_j [BLOCK_R]
            push_j = tl.load(own + col, mask=mask_c & (offs > j), other=0.0)  # R_jk
            w -= error[:, None] * push_j[None, :]
        # Column j was left as it was when its turn came: all errors at once.
        errors = tl.div_rn(tl.where(pruned & mask, w, 0.0), scale[None, :])
        tl.store(errors_ptr + block_offs, errors, mask=mask)
        loss += tl.sum(errors * errors, 1).to(tl.float64)
        w = tl.where(pruned, 0.0, w)
        live = mask_c & (tl.load(dead_ptr + start + col, mask=mask_c, other=1) == 0)
        original = tl.load(
            weight_ptr + offs_r[:, None] * stride_weight + col[None, :],
            mask=mask_r & live[None, :],
            other=0.0,
        ).to(tl.float32)
        tl.store(delta_ptr + out + out_offs, w - original, mask=mask)
        tl.store(pruned_ptr + out + out_offs, w.to(pruned_ptr.dtype.element_ty), mask=mask)
        if RULE != "given":
            tl.store(keep_ptr + out + out_offs, pruned == 0, mask=mask)
        tl.debug_barrier()  # the next step reads the errors
    tl.store(losses_ptr + tl.program_id(0), tl.sum(loss, 0))
