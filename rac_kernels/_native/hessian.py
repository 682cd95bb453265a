"""Hessians in C++."""

from torch import Tensor

from rac_kernels._native.loading import CPU, DTYPES, load, threads
from rac_kernels.triangle import PackedTriangle

# Multiply-adds from which a second thread pays for being woken.
_PARALLEL_MULTIPLY_ADDS = 1 << 21


def hessian_accumulate_(
    hessian: Tensor | PackedTriangle, x: Tensor, row_weight: Tensor | None
) -> Tensor | PackedTriangle:
    """Add ``sum_t w_t x_t x_t^T`` of x [T, D] on and below the diagonal of ``hessian``."""
    packed = isinstance(hessian, PackedTriangle)
    values = hessian.data if packed else hessian
    rows, features = x.shape
    if row_weight is not None:
        row_weight = row_weight.float().contiguous()
    small = rows * features**2 < 2 * _PARALLEL_MULTIPLY_ADDS
    load(CPU).hessian_accumulate(
        hessian=values.data_ptr(),
        stride_hessian=0 if packed else values.stride(0),
        packed=packed,
        x=x.data_ptr(),
        stride_x=x.stride(0),
        dtype=DTYPES[x.dtype],
        row_weight=0 if row_weight is None else row_weight.data_ptr(),
        rows=rows,
        features=features,
        threads=1 if small else threads(),
    )
    return hessian


def copy_lower_(work: Tensor, hessian: Tensor) -> None:
    """Make contiguous ``work`` [C, C] the lower triangle of ``hessian`` and zeros above it."""
    load(CPU).copy_lower(
        from_=hessian.data_ptr(),
        stride=hessian.stride(0),
        to=work.data_ptr(),
        columns=hessian.shape[0],
        threads=threads(),
    )


def reversed_cholesky_(hessian: Tensor) -> tuple[int, float] | None:
    """Overwrite the lower triangle of ``hessian`` [C, C] with that of U^T, ``H = U U^T``.

    Returns:
        None, or the first column whose pivot is not positive and finite, and that pivot;
        ``hessian`` is then half overwritten.
    """
    column, pivot = load(CPU).reversed_cholesky(
        matrix=hessian.data_ptr(),
        stride=hessian.stride(0),
        columns=hessian.shape[0],
        threads=threads(),
    )
    return None if column < 0 else (column, pivot)
