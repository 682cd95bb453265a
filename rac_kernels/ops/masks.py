"""Public functions that choose which weights go: masks, Wanda, magnitude."""

from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import (
    FLOATS,
    check_hessian_diagonal,
    check_integer,
    check_matrix,
    check_pattern,
    refuse,
)
from rac_kernels._choice import choose, native_mask, triton_mask
from rac_kernels.pattern import Pattern
from rac_kernels.reference import select_mask as reference_mask
from rac_kernels.reference import wanda as reference_wanda


def wanda(
    weight: Tensor, hessian_diagonal: Tensor, pattern: Pattern, *, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Zero the lowest ``|w_ij| * sqrt(H_jj)`` of every row (n:m: of every m); no weight update.

    Args:
        weight: bf16, fp16 or fp32 [R, C]; not changed.
        hessian_diagonal: [C], the diagonal of the raw sums, finite and >= 0.
        pattern: unstructured prunes ``round(C * s)`` of each row, ties by lowest index.
        impl: see :func:`select_mask`; "triton", and "native" on the CPU, score, select and prune
            in one go.

    Returns:
        The pruned weight and the mask bool [R, C], True = kept.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or values are not finite.

    Source: Wanda, arXiv 2306.11695, equation 1.
    """
    op = "wanda"
    check_matrix(op, "weight", weight, FLOATS)
    check_hessian_diagonal(op, weight, hessian_diagonal)
    chosen = _check_and_choose(op, weight, pattern, "row", 128, impl)
    if chosen == "triton":
        return _triton_mask(op, weight, pattern, "row", 128, "wanda", hessian_diagonal)
    if chosen == "native" and weight.is_cpu:
        scale = hessian_diagonal.float().sqrt()
        return _native_mask(op, weight, pattern, "row", 128, "wanda", scale, prune=True)
    scores = reference_wanda.wanda_scores(weight, hessian_diagonal)
    mask = _select(op, scores, pattern, "row", 128, chosen)
    return weight.masked_fill(~mask, 0), mask


def magnitude(weight: Tensor, pattern: Pattern, *, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """Zero the smallest ``|w_ij|`` of the layer (n:m: of every m neighbours of a row).

    Args:
        weight: bf16, fp16 or fp32 [R, C]; not changed.
        pattern: unstructured prunes ``round(R * C * s)``, ties by lowest index.
        impl: see :func:`select_mask`.

    Returns:
        The pruned weight and the mask bool [R, C], True = kept.

    Raises:
        ValueError, TypeError: as :func:`select_mask`.
    """
    op = "magnitude"
    check_matrix(op, "weight", weight, FLOATS)
    chosen = _check_and_choose(op, weight, pattern, "layer", 128, impl)
    if chosen == "triton":
        return _triton_mask(op, weight, pattern, "layer", 128, "abs")
    if chosen == "native" and weight.is_cpu:
        return _native_mask(op, weight, pattern, "layer", 128, "abs", prune=True)
    mask = _select(op, weight.abs(), pattern, "layer", 128, chosen)
    return weight.masked_fill(~mask, 0), mask


def select_mask(
    scores: Tensor,
    pattern: Pattern,
    per: str = "row",
    *,
    block_size: int = 128,
    impl: str = "auto",
) -> Tensor:
    """Keep-mask bool [R, C] (True = kept) that prunes the lowest scores, ties by lowest index.

    Args:
        scores: bf16, fp16 or fp32 [R, C], no NaN.
        pattern: unstructured prunes ``round(numel * s)`` of each ``per``; n:m always n of every m
            neighbours of a row.
        per: "row", "block" ([R, block_size] columns) or "layer".
        block_size: columns per block.
        impl: "auto", "reference", "native" (the CPU, where it is auto's choice; on a GPU n:m alone,
            m <= 128), "triton" (a GPU, and auto's choice there).

    Raises:
        ValueError, TypeError: NaN, a bad ``per``, C not a multiple of m, wrong dtype or impl.
    """
    op = "select_mask"
    check_matrix(op, "scores", scores, FLOATS)
    if per not in ("row", "block", "layer"):
        refuse(op, "per 'row', 'block' or 'layer'", repr(per))
    check_integer(op, "block_size", block_size, 1)
    chosen = _check_and_choose(op, scores, pattern, per, block_size, impl)
    if chosen == "triton":
        return _triton_mask(op, scores, pattern, per, block_size, "value", prune=False)[1]
    if chosen == "native" and scores.is_cpu:
        return _native_mask(op, scores, pattern, per, block_size, "value")[1]
    return _select(op, scores, pattern, per, block_size, chosen)


def _check_and_choose(
    op: str, scores: Tensor, pattern: Pattern, per: str, block_size: int, impl: str
) -> str:
    check_pattern(op, pattern, scores.shape[1])
    return choose(
        op,
        impl,
        {"reference", "native", "triton"},
        native_mask(scores, pattern),
        triton=triton_mask(scores, pattern, per, block_size),
        auto=("triton",) if scores.is_cuda else ("native",),
    )


def _triton_mask(
    op: str,
    scores: Tensor,
    pattern: Pattern,
    per: str,
    block_size: int,
    score: str,
    diagonal: Tensor | None = None,
    prune: bool = True,
) -> tuple[Tensor | None, Tensor]:
    """What is left of ``scores`` (if ``prune``), and the mask."""
    from rac_kernels._triton import select_mask as kernel

    mask, pruned, nan = kernel.select_mask(
        scores, pattern, per, block_size, score=score, diagonal=diagonal, prune=prune
    )
    if bool(nan):
        _refuse_nan(op, scores)
    return pruned, mask


def _native_mask(
    op: str,
    weight: Tensor,
    pattern: Pattern,
    per: str,
    block_size: int,
    score: str,
    scale: Tensor | None = None,
    prune: bool = False,
) -> tuple[Tensor | None, Tensor]:
    """What is left of ``weight`` on the CPU (if ``prune``), and the mask, in one call."""
    pruned, mask, nan = _native.select_mask(
        weight, pattern, per, block_size, score=score, scale=scale, prune=prune
    )
    if nan:
        _refuse_nan(op, weight)
    return pruned, mask


def _select(
    op: str, scores: Tensor, pattern: Pattern, per: str, block_size: int, chosen: str
) -> Tensor:
    if scores.numel() and bool(scores.aminmax().max.isnan()):  # NaN wins, and it is one fast read
        _refuse_nan(op, scores)
    if chosen == "native":
        return _native.select_mask_cuda(scores.contiguous(), pattern)
    return reference_mask.select_mask(scores, pattern, per, block_size)


def _refuse_nan(op: str, scores: Tensor) -> None:
    refuse(op, "scores without NaN", f"NaN in scores {list(scores.shape)}")
