"""H += X^T diag(w) X on the lower triangle: a persistent grid walks the tiles of the triangle.

::

        columns j ->         A unit of work is a tile, or one of `splits` ranges of tokens of one of
     i  0  .  .  .           the first `split_tiles` tiles; program p takes units p, p + programs,
     |  1  2  .  .           ... (tuning.plan_splits). Tokens are summed by the tensor cores, in
     v  3  4  5  .           one accumulator at most SEGMENT of them, which is then added into H:
        6  7  8  9           they round towards zero, float32 additions do not.

An element of H is added to by one program alone, in the order of its segments, so the bits are the
same every time. Parts of a split tile go to a workspace instead; the program that finishes the last
of them adds them up in their order. No program ever waits for another.

H is added to with reductions (atomics without a result): nothing else writes the element, but they
need no registers for what was there, and the next tile's loads do not wait for them.

Numerics: products of bf16 or fp16 are exact. A tensor core step adds 16 of them and loses up to
2^-23 of the sum, always downwards: over a segment of 16384 at most 1.2e-4 of it, and about 3e-5 of
a sum that grows steadily. float32 rows (weighted ones are) are multiplied as three bf16 each, the
six products that are above 2^-26: never as TF32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from rac_kernels._triton import tuning
from rac_kernels._triton.triangle import PACKED_ROWS, block_row, tile_origin
from rac_kernels.triangle import PackedTriangle

NOT_SPECIALIZED = ["tokens", "split_tiles", "splits", "units"]


@triton.jit
def sum_tokens(
    x_ptr, weight_ptr, start, end, i0, j0, features, stride_xt,
    BLOCK_T: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
    PRECISION: tl.constexpr, MASK_ONLY: tl.constexpr,
):  # fmt: skip
    """sum_t w_t x_t[i] x_t[j] of a tile over tokens [start, end), float32 [BLOCK_I, BLOCK_J]."""
    offs_t = tl.arange(0, BLOCK_T)
    offs_i = i0 + tl.arange(0, BLOCK_I)
    offs_j = j0 + tl.arange(0, BLOCK_J)
    mask_i = offs_i[None, :] < features
    mask_j = offs_j[None, :] < features
    a_ptrs = x_ptr + (start + offs_t)[:, None] * stride_xt + offs_i[None, :]
    b_ptrs = x_ptr + (start + offs_t)[:, None] * stride_xt + offs_j[None, :]
    step = tl.cast(stride_xt, tl.int64) * BLOCK_T
    acc = tl.zeros((BLOCK_I, BLOCK_J), tl.float32)
    for t in range(start, end, BLOCK_T):
        mask_t = offs_t < end - t
        if weight_ptr is not None:
            weight = tl.load(weight_ptr + t + offs_t, mask=mask_t, other=0)
            mask_t = mask_t & (weight != 0)
        a = tl.load(a_ptrs, mask=mask_t[:, None] & mask_i, other=0.0)  # [BLOCK_T, BLOCK_I]
        b = tl.load(b_ptrs, mask=mask_t[:, None] & mask_j, other=0.0)  # [BLOCK_T, BLOCK_J]
        if weight_ptr is not None and not MASK_ONLY:
            a = a.to(tl.float32) * weight[:, None]
            b = b.to(tl.float32)
        acc = tl.dot(tl.trans(a), b, acc, input_precision=PRECISION)
        a_ptrs += step
        b_ptrs += step
    return acc


@triton.jit
def sum_tokens_tma(
    a_desc, b_desc, start, end, i0, j0,
    BLOCK_T: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """Sum as sum_tokens does; the copy engine zeroes what is outside x."""
    acc = tl.zeros((BLOCK_I, BLOCK_J), tl.float32)
    for t in range(start.to(tl.int32), end.to(tl.int32), BLOCK_T):
        a = a_desc.load([t, i0])  # [BLOCK_T, BLOCK_I]
        b = b_desc.load([t, j0])  # [BLOCK_T, BLOCK_J]
        acc = tl.dot(tl.trans(a), b, acc)
    return acc


@triton.jit
def add_parts(
    slot, slot_stride, parts, base, row_stride, i0, j0, features, columns,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """H tile += its parts, first to last."""
    ROWS: tl.constexpr = BLOCK_I // 4
    for r in range(0, BLOCK_I, ROWS):
        local = r + tl.arange(0, ROWS)
        offs_c = tl.arange(0, BLOCK_J)
        rows = (i0 + local).to(tl.int64)
        cols = j0 + offs_c
        mask = (rows[:, None] < features) & (cols[None, :] < columns)
        part_ptrs = slot + local[:, None] * BLOCK_J + offs_c[None, :]
        total = tl.zeros((ROWS, BLOCK_J), tl.float32)
        for _ in range(parts):
            total += tl.load(part_ptrs, mask=mask, other=0.0, cache_modifier=".cg")
            part_ptrs += slot_stride
        h_ptrs = base + rows[:, None] * row_stride + cols[None, :]
        tl.atomic_add(h_ptrs, total, mask=mask, sem="relaxed")


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def hessian_kernel(
    x_ptr, a_desc, b_desc, weight_ptr, rows_ptr, h_ptr, workspace_ptr, arrived_ptr,
    tokens, features, stride_xt, stride_h, split_tiles, splits, units,
    BLOCK_T: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, GROUP: tl.constexpr,
    SEGMENT: tl.constexpr, PRECISION: tl.constexpr, MASK_ONLY: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """H[i, j] += sum_t w_t x_t[i] x_t[j] for every tile with an entry on or below the diagonal."""
    tl.static_assert(PACKED_ROWS % BLOCK_I == 0, "a tile must not span two packed block rows")
    tl.static_assert(SEGMENT % BLOCK_T == 0)
    tokens = tokens.to(tl.int64)
    if rows_ptr is not None:
        tokens = tl.minimum(tokens, tl.load(rows_ptr).to(tl.int64))
    segments = tl.cdiv(tokens, SEGMENT).to(tl.int32)
    split_units = split_tiles * splits
    share = tl.maximum(tl.cdiv(tl.cdiv(tokens, splits), BLOCK_T), 1) * BLOCK_T
    mine = tl.cdiv(units - tl.program_id(0), tl.num_programs(0))
    # One loop over units and their segments: nothing of a tile is kept in registers between them.
    for step in range(mine * segments):
        unit = tl.program_id(0) + step // segments * tl.num_programs(0)
        segment = step % segments
        is_part = unit < split_units
        divisor = tl.maximum(split_tiles, 1)
        tile = tl.where(is_part, unit % divisor, unit - split_units + split_tiles)
        start = tl.where(is_part, unit // divisor * share, 0)
        end = tl.where(is_part, tl.minimum(start + share, tokens), tokens)
        first = start + segment * SEGMENT
        last = tl.minimum(first + SEGMENT, end)
        i0, j0 = tile_origin(tile, features, BLOCK_I, BLOCK_J, GROUP)
        if (first < last) & (i0 < features) & (j0 < features):
            if a_desc is not None:
                acc = sum_tokens_tma(a_desc, b_desc, first, last, i0, j0, BLOCK_T, BLOCK_I, BLOCK_J)
            else:
                acc = sum_tokens(
                    x_ptr, weight_ptr, first, last, i0, j0, features, stride_xt,
                    BLOCK_T, BLOCK_I, BLOCK_J, PRECISION, MASK_ONLY,
                )  # fmt: skip
            # Addresses from i0 on: what is the same for all tiles would be kept in registers.
            rows = (i0 + tl.arange(0, BLOCK_I)).to(tl.int64)
            cols = j0 + tl.arange(0, BLOCK_J)
            base, row_stride, columns = block_row(h_ptr, i0, features, stride_h, PACKED)
            mask = (rows[:, None] < features) & (cols[None, :] < columns)
            slot = workspace_ptr + (unit.to(tl.int64) * BLOCK_I - i0) * BLOCK_J - j0
            target = tl.where(is_part, slot, base)
            target_stride = tl.where(is_part, BLOCK_J, row_stride)
            target_ptrs = target + rows[:, None] * target_stride + cols[None, :]
            if is_part & (segment == 0):
                tl.store(target_ptrs, acc, mask=mask)
            else:
                tl.atomic_add(target_ptrs, acc, mask=mask, sem="relaxed")
            if is_part & (last == end):
                tl.debug_barrier()  # all of this program's part is written
                arrived = tl.atomic_add(arrived_ptr + tile, 1, sem="acq_rel")
                parts = tl.cdiv(tokens, share).to(tl.int32)
                if arrived == parts - 1:
                    add_parts(
                        workspace_ptr + tile.to(tl.int64) * (BLOCK_I * BLOCK_J),
                        divisor.to(tl.int64) * (BLOCK_I * BLOCK_J),
                        parts, base, row_stride, i0, j0, features, columns, BLOCK_I, BLOCK_J,
                    )  # fmt: skip


def hessian_accumulate_(
    hessian: Tensor | PackedTriangle,
    x: Tensor,
    row_weight: Tensor | None,
    *,
    rows: Tensor | None = None,
    config: tuning.HessianConfig | None = None,
) -> Tensor | PackedTriangle:
    """Add ``sum_t w_t x_t x_t^T`` to the lower triangle of ``hessian``.

    Args:
        hessian: float32 [D, D] with a unit last stride, or packed; updated in place.
        x: [T, D] bf16, fp16 or fp32, unit last stride.
        row_weight: [T] or None. A row of weight 0 adds nothing, even if it is not finite.
        rows: int32 or int64 scalar on the device of x, or None: only the first ``rows`` rows of x
            count. It is read by the kernel, so the host need not wait for it.
        config: None takes the default.
    """
    tokens, features = x.shape
    if tokens == 0 or features == 0:
        return hessian
    packed = isinstance(hessian, PackedTriangle)
    h = hessian.data if packed else hessian
    stride_h = 0 if packed else h.stride(0)
    mask_only = row_weight is not None and row_weight.dtype == torch.bool
    if row_weight is not None:
        row_weight = row_weight.contiguous()
        row_weight = row_weight.view(torch.uint8) if mask_only else row_weight.float()
    aligned = _aligned(x, x.stride(0), features) and _aligned(h, stride_h)
    if config is None:
        weighted = row_weight is not None and not mask_only
        config = tuning.pick_hessian(features, x.dtype, weighted, aligned, x.device)
    block_i, block_j, block_t = config.block_i, config.block_j, config.block_t
    tiles = config.count_tiles(features)
    programs = tuning.count_programs(x.device, config.programs_per_sm)
    split_tiles, splits = tuning.plan_splits(tiles, tokens, programs)
    units = tiles + split_tiles * (splits - 1)
    a_desc = b_desc = None
    if config.tma and aligned and row_weight is None and rows is None and x.stride(0) >= features:
        sizes = {"shape": [tokens, features], "strides": [x.stride(0), 1]}
        a_desc = TensorDescriptor(x, **sizes, block_shape=[block_t, block_i])
        b_desc = TensorDescriptor(x, **sizes, block_shape=[block_t, block_j])
    with torch.cuda.device_of(x):
        hessian_kernel[(min(programs, units),)](
            None if a_desc is not None else x,
            a_desc,
            b_desc,
            row_weight,
            rows,
            h,
            h.new_empty(split_tiles * splits * block_i * block_j),
            h.new_zeros(split_tiles, dtype=torch.int32),
            tokens,
            features,
            x.stride(0),
            stride_h,
            split_tiles,
            splits,
            units,
            BLOCK_T=block_t,
            BLOCK_I=block_i,
            BLOCK_J=block_j,
            GROUP=config.group,
            SEGMENT=config.segment,
            PRECISION=config.precision,
            MASK_ONLY=mask_only,
            PACKED=packed,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
    return hessian


def _aligned(tensor: Tensor, *sizes: int) -> bool:
    """Whether rows can be read and written 16 bytes at a time."""
    return tensor.data_ptr() % 16 == 0 and all(size % 16 == 0 for size in sizes)
