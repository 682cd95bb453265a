"""Masks in C++ and CUDA."""

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, CUDA, DTYPES, PARALLEL, load, threads
from rac_kernels.pattern import Pattern

SCORES = {"value": 0, "abs": 1, "wanda": 2}


def select_mask(
    weight: Tensor,
    pattern: Pattern,
    per: str,
    block_size: int,
    *,
    score: str = "value",
    scale: Tensor | None = None,
    prune: bool = False,
) -> tuple[Tensor | None, Tensor, bool]:
    """What is left of ``weight`` [R, C] on the CPU (if ``prune``), its keep-mask, and if NaN is in.

    Args:
        weight: float32, bf16 or fp16.
        pattern: any.
        per: "row", "block" or "layer"; n:m is always of m neighbours.
        block_size: columns per block.
        score: "value", "abs", or "wanda": magnitude times ``scale`` float32 [C] of its column.
        scale: of Wanda.
        prune: also write the pruned weight.
    """
    if weight.shape[1] > 1 and weight.stride(1) != 1:
        weight = weight.contiguous()
    rows, columns = weight.shape
    keep = torch.empty(rows, columns, dtype=torch.bool)
    pruned = torch.empty(rows, columns, dtype=weight.dtype) if prune else None
    if weight.numel() == 0:
        return pruned, keep, False
    together, width, count, last_count = _segments(rows, columns, pattern, per, block_size)
    if scale is not None:
        scale = scale.contiguous()
    finite = load(CPU).select_mask(
        weight=weight.data_ptr(),
        stride=weight.stride(0),
        rows=rows,
        columns=columns,
        dtype=DTYPES[weight.dtype],
        score=SCORES[score],
        scale=0 if scale is None else scale.data_ptr(),
        keep=keep.data_ptr(),
        pruned=0 if pruned is None else pruned.data_ptr(),
        together=together,
        width=width,
        count=count,
        last_count=last_count,
        threads=1 if weight.numel() < PARALLEL else threads(),
    )
    return pruned, keep, not finite


def _segments(
    rows: int, columns: int, pattern: Pattern, per: str, block_size: int
) -> tuple[int, int, int, int]:
    """Rows and columns of what is pruned alike, and how many in each and in the narrower last."""
    if pattern.structured:
        return 1, pattern.m, pattern.n, pattern.n
    together = 1 if per == "row" else rows
    width = min(block_size, columns) if per == "block" else columns
    last = columns % width or width
    return together, width, pattern.count(together * width), pattern.count(together * last)


def select_mask_cuda(scores: Tensor, pattern: Pattern) -> Tensor:
    """Keep-mask of an n:m pattern for contiguous ``scores`` [R, C] on a GPU."""
    keep = torch.empty_like(scores, dtype=torch.bool)
    with torch.cuda.device(scores.device):
        load(CUDA).select_mask(
            scores=scores.data_ptr(),
            keep=keep.data_ptr(),
            groups=scores.numel() // pattern.m,
            n=pattern.n,
            m=pattern.m,
            dtype=DTYPES[scores.dtype],
            stream=torch.cuda.current_stream().cuda_stream,
        )
    return keep
