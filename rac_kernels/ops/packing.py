"""Packing of sparse weights: validate, choose an implementation, call it."""

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import check_hessian_diagonal, check_matrix, refuse
from rac_kernels._choice import choose, native_cpu, native_packing
from rac_kernels._linear_checks import (
    HALVES,
    PACKABLE,
    check_bits,
    check_kind,
    check_parts_2to4,
    check_parts_bitmap,
    check_scale,
    refuse_row,
)
from rac_kernels.packed import COLUMNS, Packed2to4, PackedBitmap
from rac_kernels.reference import mask_and_pack_2to4 as reference_masked
from rac_kernels.reference import pack_2to4 as reference_2to4
from rac_kernels.reference import pack_bitmap as reference_bitmap

_BOTH = {"reference", "native"}


def pack_2to4(weight: Tensor, *, scale: Tensor | None = None, impl: str = "auto") -> Packed2to4:
    """Pack a 2:4 sparse weight to 9/16 of its bytes (5/8 for 8-bit values).

    Args:
        weight: bf16, fp16, int8 or fp8_e4m3 [R, C], at most two non-zeros in every four neighbours
            of a row; C a multiple of 32 (of 64 for 8-bit values), because CUTLASS pairs the columns
            of metadata. -0.0 is packed as 0.0.
        scale: float32 [R] without NaN to keep beside it, see :class:`Packed2to4`.
        impl: "auto", "reference", "native" (the CPU or a GPU, and auto's choice there).

    Raises:
        ValueError, TypeError: wrong dtype or shape, or the weight is not 2:4 (names the first group
            with more than two non-zeros).

    Source: CUTLASS's reorder_meta; bit for bit what torch's own conversion makes.
    """
    op = "pack_2to4"
    _check_packable(op, weight, PACKABLE)
    if scale is not None:
        check_scale(op, scale, weight.shape[0], weight)
    if choose(op, impl, _BOTH, native_packing(weight)) == "native":
        packed, found = _native.pack_2to4(weight, scale)
    else:
        found = reference_2to4.first_dense_group(weight)
        packed = None if found else reference_2to4.pack_2to4(weight.contiguous(), scale)
    if found is not None:
        refuse(op, "at most two non-zeros in every four", f"more in {_place(*found)}")
    return packed


def mask_and_pack_2to4(
    weight: Tensor, hessian_diagonal: Tensor | None = None, *, impl: str = "auto"
) -> Packed2to4:
    """Prune a dense weight to 2:4 and pack it: one read of the weight, one write.

    Bit for bit :func:`pack_2to4` of what :func:`wanda` leaves, or without a diagonal
    :func:`magnitude`.

    Args:
        weight: bf16 or fp16 [R, C], C a multiple of 32; not changed.
        hessian_diagonal: [C], the diagonal of the raw sums, finite and >= 0: the two highest
            ``|w_ij| * sqrt(H_jj)`` of every four stay. None: the two highest ``|w_ij|``.
        impl: see :func:`pack_2to4`.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or a score is NaN (names the
            first group with one).

    Source: Wanda, arXiv 2306.11695, equation 1.
    """
    op = "mask_and_pack_2to4"
    _check_packable(op, weight, HALVES)
    if hessian_diagonal is not None:
        check_hessian_diagonal(op, weight, hessian_diagonal)
    if choose(op, impl, _BOTH, native_packing(weight)) == "native":
        root = None if hessian_diagonal is None else hessian_diagonal.float().sqrt()
        packed, found = _native.pack_2to4(weight, None, prune=True, column_scale=root)
    else:
        scores = reference_masked.scores_of(weight, hessian_diagonal)
        found = reference_masked.first_nan_group(scores)
        packed = None if found else reference_masked.mask_and_pack_2to4(weight, scores)
    if found is not None:
        refuse(op, "scores without NaN", f"NaN in {_place(*found)}")
    return packed


def unpack_2to4(packed: Packed2to4, *, impl: str = "auto") -> Tensor:
    """The dense weight [R, C] in the dtype of the values, ``scale`` not applied.

    Args:
        packed: from :func:`pack_2to4`.
        impl: see :func:`pack_2to4`.

    Raises:
        ValueError, TypeError: values and metadata do not fit each other, or the metadata is
            corrupted: the positions of a group are not two ascending ones (names the first row).
    """
    op = "unpack_2to4"
    check_kind(op, packed, Packed2to4)
    check_parts_2to4(op, packed)
    if choose(op, impl, _BOTH, native_packing(packed.values)) == "native":
        weight, row = _native.unpack_2to4(packed)
    else:
        row = reference_2to4.first_corrupted_row(packed)
        weight = None if row is not None else reference_2to4.unpack_2to4(packed)
    if row is not None:
        refuse_row(op, row)
    return weight


def _place(row: int, column: int) -> str:
    return f"row {row}, columns {column} to {column + 3}"


def _check_packable(op: str, weight: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    check_matrix(op, "weight", weight, dtypes)
    multiple = COLUMNS[weight.element_size()]
    if weight.shape[1] == 0 or weight.shape[1] % multiple:
        dtype = str(weight.dtype).removeprefix("torch.")
        refuse(op, f"in_features that are a multiple of {multiple} for {dtype}", weight.shape[1])


def pack_bitmap(weight: Tensor, *, impl: str = "auto") -> PackedBitmap:
    """Pack an unstructured sparse weight: its non-zeros and one bit a weight.

    Args:
        weight: bf16 or fp16 [R, C]. -0.0 is zero.
        impl: "auto", "reference", "native" (CPU).

    Raises:
        ValueError, TypeError: wrong dtype or shape.
    """
    op = "pack_bitmap"
    check_matrix(op, "weight", weight, HALVES)
    if choose(op, impl, _BOTH, native_cpu(weight)) == "reference":
        return reference_bitmap.pack_bitmap(weight)
    by_rows = weight.stride(1) == 1 and weight.stride(0) >= weight.shape[1]
    return _native.pack_bitmap(weight if by_rows else weight.contiguous())


def unpack_bitmap(packed: PackedBitmap, *, impl: str = "auto") -> Tensor:
    """The dense weight [R, C].

    Args:
        packed: from :func:`pack_bitmap`.
        impl: "auto", "reference", "native" (CPU).

    Raises:
        ValueError, TypeError: values, bitmap and offsets do not fit each other.
    """
    op = "unpack_bitmap"
    check_kind(op, packed, PackedBitmap)
    check_parts_bitmap(op, packed)
    check_bits(op, packed)
    if choose(op, impl, _BOTH, native_cpu(packed.values)) == "reference":
        return reference_bitmap.unpack_bitmap(packed)
    return _native.unpack_bitmap(packed)
