"""Linears with packed weights: validate, choose an implementation, call it."""

from torch import Tensor

from rac_kernels._checks import FLOATS, check_same_device, refuse
from rac_kernels._choice import choose
from rac_kernels.packed import Packed2to4, PackedBitmap
from rac_kernels.reference import linear_sparse as reference_linear


def linear_2to4(
    x: Tensor, packed: Packed2to4, bias: Tensor | None = None, *, impl: str = "auto"
) -> Tensor:
    """``x W^T + bias`` with a 2:4 weight that stays packed.

    Args:
        x: bf16, fp16 or fp32 [..., C].
        packed: W [R, C], from :func:`pack_2to4`.
        bias: [R] or None.
        impl: "auto", "reference".

    Returns:
        [..., R] in the dtype of ``x``; sums are float32.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit.
    """
    op = "linear_2to4"
    _check(op, x, packed, bias)
    choose(op, impl, {"reference"})
    return reference_linear.linear_2to4(x, packed, bias)


def linear_bitmap(
    x: Tensor, packed: PackedBitmap, bias: Tensor | None = None, *, impl: str = "auto"
) -> Tensor:
    """``x W^T + bias`` with an unstructured sparse weight that stays packed.

    Args:
        x: bf16, fp16 or fp32 [..., C].
        packed: W [R, C], from :func:`pack_bitmap`.
        bias: [R] or None.
        impl: "auto", "reference".

    Returns:
        [..., R] in the dtype of ``x``; sums are float32.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit.
    """
    op = "linear_bitmap"
    _check(op, x, packed, bias)
    choose(op, impl, {"reference"})
    return reference_linear.linear_bitmap(x, packed, bias)


def _check(op: str, x: Tensor, packed: Packed2to4 | PackedBitmap, bias: Tensor | None) -> None:
    rows, columns = packed.shape
    if x.dtype not in FLOATS:
        raise TypeError(f"{op}: expected x in bf16, fp16 or fp32, got {x.dtype}")
    if x.ndim == 0 or x.shape[-1] != columns:
        refuse(op, f"x [..., {columns}] for W {[rows, columns]}", list(x.shape))
    check_same_device(op, x=x, packed=packed.values)
    if bias is not None:
        if bias.shape != (rows,):
            refuse(op, f"bias [{rows}] for W {[rows, columns]}", list(bias.shape))
        check_same_device(op, x=x, bias=bias)
