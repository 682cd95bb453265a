"""Hessians and their factor: validate, choose an implementation, call it."""

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import check_factor_hessian, check_hessian_accumulate, check_matrix
from rac_kernels._choice import auto_factor, auto_hessian, choose, native_hessian, triton_hessian
from rac_kernels.factor import HessianFactor
from rac_kernels.reference import factor_hessian as reference_factor
from rac_kernels.reference import hessian_accumulate as reference_hessian
from rac_kernels.reference import symmetrize as reference_symmetrize
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
    ones. Where the CPU multiplies bf16 itself (AMX), values and sums below 2**-126 count as 0. The
    same tensors on the same machine give the same bits.

    Args:
        hessian: float32 [D, D] or :class:`PackedTriangle`, updated in place; entries above the
            diagonal are unspecified.
        x: bf16, fp16 or fp32 [..., D] with a unit last stride: T rows of in_features. T may be 0.
        row_weight: [...] or None: a bool mask, or finite numbers; a row of weight 0 adds nothing,
            even if it is not finite.
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
        damping: share of the mean diagonal added to the diagonal. The mean is over live columns; in
            the published code dead ones count as 1, which depends on the scale of H.
        max_damping: where doubling stops.
        overwrite: let the factor take the memory of ``hessian``.
        impl: "auto", "reference" (LAPACK; on a GPU cuSOLVER), "native" (the CPU, and auto's choice
            there), "triton" (a GPU). Auto on a GPU takes what was the faster one for such a C;
            "triton" is not yet measured, so never that.

    Raises:
        ValueError, TypeError: wrong shape or dtype, damping out of range, NaN or Inf in H, or an H
            that is not positive definite even so (names the column); H is then untouched unless
            ``overwrite``.

    Source: SparseGPT, arXiv 2301.00774, with H = U U^T in the place of its inverse's factor.
    """
    op = "factor_hessian"
    check_factor_hessian(op, hessian, damping, max_damping)
    chosen = choose(
        op,
        impl,
        {"reference", "native", "triton"},
        native_hessian(hessian),
        triton=triton_hessian(hessian),
        auto=auto_factor(hessian),
    )
    cholesky, copy_lower = reference_factor.reversed_cholesky_, reference_factor.copy_lower_
    if chosen == "native":
        cholesky, copy_lower = _native.reversed_cholesky_, _native.copy_lower_
    elif chosen == "triton":
        from rac_kernels._triton import factor_hessian as triton_factor

        cholesky = triton_factor.reversed_cholesky_
    return reference_factor.factor_hessian(
        hessian, damping, max_damping, overwrite, cholesky, copy_lower
    )
