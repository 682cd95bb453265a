"""The public functions: validate, choose an implementation, call it."""

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import (
    FLOATS,
    check_factor_hessian,
    check_hessian_accumulate,
    check_matrix,
    check_pattern,
    check_same_device,
    check_sparsegpt,
    refuse,
)
from rac_kernels._choice import (
    auto_hessian,
    choose,
    native_block,
    native_hessian,
    native_mask,
    triton_hessian,
)
from rac_kernels.factor import HessianFactor
from rac_kernels.pattern import Pattern
from rac_kernels.reference import factor_hessian as reference_factor
from rac_kernels.reference import hessian_accumulate as reference_hessian
from rac_kernels.reference import select_mask as reference_mask
from rac_kernels.reference import sparsegpt as reference_sparsegpt
from rac_kernels.reference import symmetrize as reference_symmetrize
from rac_kernels.reference import wanda as reference_wanda
from rac_kernels.triangle import PackedTriangle


def native_status() -> dict[str, str]:
    """Whether the compiled modules are usable: "ok (<instruction set>)" or why they are not."""
    cpu, cuda = _native.why_missing("cpu"), _native.why_missing("cuda")
    return {"cpu": cpu or f"ok ({_native.instruction_set()})", "cuda": cuda or "ok"}


def hessian_accumulate_(
    hessian: Tensor | PackedTriangle,
    x: Tensor,
    *,
    row_weight: Tensor | None = None,
    impl: str = "auto",
) -> Tensor | PackedTriangle:
    """Add ``sum_t w_t x_t x_t^T`` to the lower triangle of ``hessian`` and return it.

    A plain sum, so partial sums of several batches, ranks or runs add exactly. All is float32: the
    error of an entry is at most ``(T + 2) * 2**-23 * sum_t |w_t x_ti x_tj|``, and products of bf16
    or fp16 values are exact, so that summing bf16 activations loses no more than summing float32
    ones. The same tensors on the same machine give the same bits.

    Args:
        hessian: float32 [D, D] or :class:`PackedTriangle`, updated in place; entries above the
            diagonal are unspecified.
        x: bf16, fp16 or fp32 [..., D] with a unit last stride: T rows of in_features. T may be 0.
        row_weight: [...] or None, finite; a row of weight 0 adds nothing, even if not finite.
        impl: "auto", "reference", "triton" (a GPU, and auto's choice there), "native" (the CPU, and
            auto's choice there).

    Raises:
        ValueError, TypeError: wrong shapes, dtypes, strides, devices or impl; H is untouched.
    """
    op = "hessian_accumulate_"
    if isinstance(hessian, PackedTriangle):
        features, values = hessian.features, hessian.data
    else:
        check_matrix(op, "hessian", hessian, (torch.float32,), square=True)
        features, values = hessian.shape[0], hessian
    check_hessian_accumulate(op, features, values, x, row_weight)
    chosen = choose(
        op,
        impl,
        {"reference", "triton", "native"},
        native_hessian(values),
        triton=triton_hessian(values),
        auto=auto_hessian(values),
    )
    if row_weight is not None:
        row_weight = row_weight.reshape(-1)
    x = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    if chosen == "triton":
        from rac_kernels._triton import hessian_accumulate as triton_kernel

        return triton_kernel.hessian_accumulate_(hessian, x, row_weight)
    if chosen == "native":
        return _native.hessian_accumulate_(hessian, x, row_weight)
    return reference_hessian.hessian_accumulate_(hessian, x, row_weight)


def symmetrize_(hessian: Tensor) -> Tensor:
    """Copy the lower triangle of ``hessian`` [D, D] onto the upper one, in place.

    Raises:
        ValueError, TypeError: not a square floating point matrix.
    """
    check_matrix("symmetrize_", "hessian", hessian, (torch.float32, torch.float64), square=True)
    return reference_symmetrize.symmetrize_(hessian)


def factor_hessian(
    hessian: Tensor,
    damping: float = 0.01,
    *,
    max_damping: float = 0.5,
    overwrite: bool = False,
    impl: str = "auto",
) -> HessianFactor:
    """Factor ``H + damping * mean(diag H) * I = U U^T`` with one Cholesky and no inverse.

    If that fails, the damping is doubled up to ``max_damping``, then the diagonal is raised to
    ``max_damping * max(diag H)``; the result says what was needed. It never is the identity.

    Args:
        hessian: float32 [C, C], raw sums of any scale; only the lower triangle is read.
        damping: share of the mean diagonal (of the live columns) added to the diagonal.
        max_damping: where doubling stops.
        overwrite: let the factor take the memory of ``hessian``.
        impl: "auto", "reference".

    Raises:
        ValueError, TypeError: wrong shape or dtype, damping out of range, NaN or Inf in H, or an H
            that is not positive definite even so (names the column); H is then untouched unless
            ``overwrite``.

    Source: SparseGPT, arXiv 2301.00774, with H = U U^T in the place of its inverse's factor.
    """
    op = "factor_hessian"
    check_factor_hessian(op, hessian, damping, max_damping)
    choose(op, impl, {"reference"})
    return reference_factor.factor_hessian(hessian, damping, max_damping, overwrite)


def sparsegpt(
    weight: Tensor,
    factor: HessianFactor,
    pattern: Pattern | None,
    *,
    block_size: int = 128,
    compat: bool = False,
    mask: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Prune ``weight`` with optimal brain surgeon updates, block by block.

    Args:
        weight: bf16, fp16 or fp32 [R, C] (out_features, in_features); not changed.
        factor: of the layer's Hessian [C, C], from :func:`factor_hessian`.
        pattern: unstructured prunes ``round(numel * s)`` of every [R, block_size] block, ties by
            lowest index; n:m prunes n of every m of a row, chosen on the updated weights.
            None with ``mask``.
        block_size: columns per block.
        compat: unstructured as IST-DASLab's code: prune ``score <= sort(scores)[int(numel * s)]``.
        mask: bool [R, C], True = kept: prune to this mask instead of choosing one.
        impl: "auto", "reference", "native" (CPU).

    Returns:
        The pruned weight (dtype of ``weight``; arithmetic is float32), the mask bool [R, C]
        (True = kept), and the loss, a float64 scalar tensor: ``||D U||_F^2``, the sum of squared
        OBS errors, with D the change of the weights: the squared output error on H's tokens plus
        its damping. Weights of dead columns become 0 whatever the mask says.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, C or block_size is not a
            multiple of m, weight is not finite, both or neither of pattern and mask.

    Source: SparseGPT, arXiv 2301.00774, algorithm 1.
    """
    op = "sparsegpt"
    check_sparsegpt(op, weight, factor.upper, pattern, block_size, mask)
    chosen = choose(op, impl, {"reference", "native"}, native=native_block(weight))
    solve = _native.sparsegpt_block if chosen == "native" else reference_sparsegpt.solve_block
    return reference_sparsegpt.sparsegpt(
        weight,
        factor.upper,
        factor.dead,
        pattern,
        block_size=block_size,
        compat=compat,
        mask=mask,
        solve=solve,
    )


def wanda(
    weight: Tensor, hessian_diagonal: Tensor, pattern: Pattern, *, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Zero the lowest ``|w_ij| * sqrt(H_jj)`` of every row (n:m: of every m); no weight update.

    Args:
        weight: bf16, fp16 or fp32 [R, C]; not changed.
        hessian_diagonal: [C], the diagonal of the raw sums, finite and >= 0.
        pattern: unstructured prunes ``round(C * s)`` of each row, ties by lowest index.
        impl: see :func:`select_mask`.

    Returns:
        The pruned weight and the mask bool [R, C], True = kept.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or values are not finite.

    Source: Wanda, arXiv 2306.11695, equation 1.
    """
    op = "wanda"
    check_matrix(op, "weight", weight, FLOATS)
    if hessian_diagonal.shape != weight.shape[1:]:
        refuse(op, f"hessian_diagonal [{weight.shape[1]}]", list(hessian_diagonal.shape))
    check_same_device(op, weight=weight, hessian_diagonal=hessian_diagonal)
    if not bool((hessian_diagonal.isfinite() & (hessian_diagonal >= 0)).all()):
        refuse(op, "a finite hessian_diagonal >= 0", "NaN, Inf or a negative entry")
    scores = reference_wanda.wanda_scores(weight, hessian_diagonal)
    mask = _select_mask(op, scores, pattern, "row", 128, impl)
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
    check_matrix("magnitude", "weight", weight, FLOATS)
    mask = _select_mask("magnitude", weight.abs(), pattern, "layer", 128, impl)
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
        impl: "auto", "reference", "native" (n:m alone, m <= 128, on the CPU or a GPU).

    Raises:
        ValueError, TypeError: NaN, a bad ``per``, C not a multiple of m, wrong dtype or impl.
    """
    check_matrix("select_mask", "scores", scores, FLOATS)
    return _select_mask("select_mask", scores, pattern, per, block_size, impl)


def _select_mask(
    op: str, scores: Tensor, pattern: Pattern, per: str, block_size: int, impl: str
) -> Tensor:
    if per not in ("row", "block", "layer"):
        refuse(op, "per 'row', 'block' or 'layer'", repr(per))
    if block_size < 1:
        refuse(op, "block_size >= 1", block_size)
    check_pattern(op, pattern, scores.shape[1])
    if scores.numel() and bool(scores.aminmax().max.isnan()):  # NaN wins, and it is one fast read
        refuse(op, "scores without NaN", f"NaN in scores {list(scores.shape)}")
    native = native_mask(scores, pattern)
    # On a GPU the reference stays the automatic choice: the CUDA kernel has not been timed there.
    prefer = native if scores.device.type == "cpu" else "not chosen automatically on a GPU"
    allowed = {"reference", "native"}
    if choose(op, impl, allowed, native=prefer if impl == "auto" else native) == "native":
        return _native.select_mask(scores.contiguous(), pattern)
    return reference_mask.select_mask(scores, pattern, per, block_size)
