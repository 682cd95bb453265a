"""Masks: n of every m, or a share of every row, segment by segment; one read, one write.

    groups_kernel     n:m, m <= 32: a program takes vectors of whole groups; 2:4 and the like by a
                      network of six compares on 16 bytes, others by ranking
    rows_kernel       a share of each row of up to 32768 columns, held in registers
    selected_kernel   any longer row, a block of columns, a layer: after selection.py

Each can also write the weights with zeros (Wanda, magnitude): scores never reach memory.
"""

import dataclasses

import torch
import triton
import triton.language as tl
from torch import Tensor

from rac_kernels._triton.ranking import lowest_of_four, rank_of, score_keys
from rac_kernels._triton.row_mask import MAX_ROW, flag_nan, row_blocks, rows_kernel, write_tile
from rac_kernels._triton.selection import (
    is_selected,
    select_lowest,
    tile_indices,
    tile_keys,
    tile_shape,
)
from rac_kernels.pattern import Pattern

MAX_RANKED_M = 32  # ranking takes m steps a group
GROUP_TILE = 2048  # scores a program takes in groups_kernel
# Low bits of a float32 key that are the same for all scores of a dtype.
SHIFT = {torch.float32: 0, torch.bfloat16: 16, torch.float16: 13}


@triton.jit(do_not_specialize=["vectors"])
def groups_kernel(
    scores_ptr,  # [R, C] contiguous, as vectors of WIDTH
    scale_ptr,  # [C] or None
    mask_ptr,  # bool [R, C]
    pruned_ptr,  # as scores, or None
    nan_ptr,  # int32 [1]
    vectors,
    row_vectors,  # of one row: C // WIDTH
    N: tl.constexpr,
    M: tl.constexpr,
    SCORE: tl.constexpr,
    WIDTH: tl.constexpr,  # a multiple of M
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Prune the N lowest of every M neighbours."""
    vector = tl.program_id(0).to(tl.int64) * BLOCK_V + tl.arange(0, BLOCK_V)
    offs_c = tl.arange(0, BLOCK_C)
    exists = (vector < vectors)[:, None] & (offs_c < WIDTH)[None, :]
    offs = vector[:, None] * WIDTH + offs_c[None, :]
    values = tl.load(scores_ptr + offs, mask=exists, other=0.0)  # [BLOCK_V, BLOCK_C]
    scale = 1.0
    if scale_ptr is not None:
        first = (vector % row_vectors * WIDTH).to(tl.int32)
        scale = tl.load(scale_ptr + first[:, None] + offs_c[None, :], mask=exists, other=1.0)
    keys, nan = score_keys(values, scale, SCORE)
    flag_nan(nan_ptr, nan & exists)
    if M == 4:  # noqa: SIM108
        pruned = lowest_of_four(keys, N, BLOCK_V, WIDTH)
    else:
        pruned = rank_of(keys, offs_c, 0, M) < N
    write_tile(mask_ptr, pruned_ptr, offs, exists, pruned, values)


@triton.jit(do_not_specialize=["tiles"])
def selected_kernel(
    scores_ptr,
    scale_ptr,
    starts_ptr,  # int32 [S + 1]
    selection_ptr,  # int32 [S, 2] of select_lowest
    mask_ptr,  # bool [R, C], rows `stride_mask` apart
    pruned_ptr,
    columns,
    stride,
    stride_mask,
    tiles,  # programs a segment
    SCORE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Prune what was selected in every segment."""
    segment, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    first, end = tl.load(starts_ptr + segment), tl.load(starts_ptr + segment + 1)
    row, col, exists = tile_indices(tile, first, end, columns, ROWS, BLOCK_C)
    keys, values, _ = tile_keys(scores_ptr, scale_ptr, row, col, exists, columns, stride, SCORE)
    index = (row - first)[:, None] * columns + col[None, :]
    pruned = is_selected(keys, index, selection_ptr, segment)
    offs = row[:, None].to(tl.int64) * stride_mask + col[None, :]
    write_tile(mask_ptr, pruned_ptr, offs, exists, pruned, values)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is read and written; `columns` and `groups` are parts of it."""

    scores: Tensor
    scale: Tensor | None
    score: str
    mask: Tensor
    pruned: Tensor | None
    nan: Tensor

    def columns(self, start: int, end: int) -> "_Job":
        part = {"scores": self.scores[:, start:end], "mask": self.mask[:, start:end]}
        if self.scale is not None:
            part["scale"] = self.scale[start:end]
        if self.pruned is not None:
            part["pruned"] = self.pruned[:, start:end]
        return dataclasses.replace(self, **part)


def select_mask(
    scores: Tensor,
    pattern: Pattern,
    per: str,
    block_size: int,
    *,
    score: str = "value",
    diagonal: Tensor | None = None,
    prune: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Keep-mask [R, C] of what ``score`` makes of ``scores`` [R, C].

    Args:
        scores: bf16, fp16 or fp32: the scores, or the weights that they are computed from.
        pattern: n:m, or the share of every ``per`` that is pruned.
        per: "row", "block" (of ``block_size`` columns) or "layer".
        block_size: columns of a block.
        score: "value", "abs", or "wanda" with the Hessian's ``diagonal`` [C]; see `score_keys`.
        diagonal: its square root is what "wanda" multiplies |x| by.
        prune: return ``scores`` with zeros too.

    Returns:
        The mask; ``scores`` with zeros, or None; int32 [1], not 0 if a score is NaN.
    """
    if scores.stride(1) != 1:
        scores = scores.contiguous()
    mask = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    pruned = torch.empty(scores.shape, dtype=scores.dtype, device=scores.device) if prune else None
    nan = torch.zeros(1, dtype=torch.int32, device=scores.device)
    scale = None if diagonal is None else diagonal.float().sqrt()
    job = _Job(scores, scale, score, mask, pruned, nan)
    if scores.numel():
        with torch.cuda.device_of(scores):
            _launch(job, pattern, per, block_size)
    return job.mask, job.pruned, job.nan


def _launch(job: _Job, pattern: Pattern, per: str, block_size: int) -> None:
    rows, columns = job.scores.shape
    if pattern.structured and pattern.m <= MAX_RANKED_M:
        _groups(job, pattern)
    elif pattern.structured:
        _long_groups(job, pattern)
    elif per == "row":
        _rows(job, pattern.count(columns))
    elif per == "layer":
        _segments(job, rows, pattern.count(rows * columns))
    else:
        for start in range(0, columns, block_size):
            block = job.columns(start, start + block_size)
            _segments(block, rows, pattern.count(block.scores.numel()))


def _groups(job: _Job, pattern: Pattern) -> None:
    columns, width = job.scores.shape[1], pattern.m
    if pattern.m == 4:  # 16 bytes of bf16 are two groups, if they end with the row
        width = 8 if columns % 8 == 0 else 4
    block_c = triton.next_power_of_2(width)
    block_v = GROUP_TILE // block_c
    vectors = job.scores.numel() // width
    groups_kernel[(triton.cdiv(vectors, block_v),)](
        job.scores.contiguous(), job.scale, job.mask, job.pruned, job.nan,
        vectors, columns // width, N=pattern.n, M=pattern.m, SCORE=job.score,
        WIDTH=width, BLOCK_V=block_v, BLOCK_C=block_c, num_warps=4,
    )  # fmt: skip


def _long_groups(job: _Job, pattern: Pattern) -> None:
    """A long group is a short row; its scale would be another for every group of a row."""
    scores = job.scores
    if job.scale is not None:
        scores = scores.float().abs() * job.scale
    groups = {
        "scores": scores.contiguous().view(-1, pattern.m),
        "mask": job.mask.view(-1, pattern.m),
    }
    score = "value" if job.scale is not None else job.score
    _rows(dataclasses.replace(job, scale=None, score=score, pruned=None, **groups), pattern.n)
    if job.pruned is not None:
        job.pruned.copy_(job.scores.masked_fill(~job.mask, 0))


def _rows(job: _Job, count: int) -> None:
    rows, columns = job.scores.shape
    if columns > MAX_ROW:
        return _segments(job, 1, count)
    shape = row_blocks(columns)
    shift = SHIFT[job.scores.dtype] if job.scale is None else 0
    rows_kernel[(triton.cdiv(rows, shape["BLOCK_R"]),)](
        job.scores, job.scale, job.mask, job.pruned, job.nan,
        rows, columns, job.scores.stride(0), count, SCORE=job.score, SHIFT=shift, **shape,
    )  # fmt: skip


def _segments(job: _Job, length: int, count: int) -> None:
    """Prune the count lowest of every `length` rows."""
    rows, columns = job.scores.shape
    segments, new = rows // length, {"dtype": torch.int32, "device": job.scores.device}
    starts = torch.arange(0, rows + 1, length, **new)
    counts = torch.full((segments,), count, **new)
    selection = select_lowest(
        job.scores, starts, counts, length, job.score, scale=job.scale, nan=job.nan
    )
    shape = tile_shape(columns)
    tiles = triton.cdiv(length, shape["ROWS"]) * triton.cdiv(columns, shape["BLOCK_C"])
    selected_kernel[(segments * tiles,)](
        job.scores, job.scale, starts, selection, job.mask, job.pruned,
        columns, job.scores.stride(0), job.mask.stride(0), tiles,
        SCORE=job.score, num_warps=8, **shape,
    )  # fmt: skip
