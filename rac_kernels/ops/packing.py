"""Packing of sparse weights: validate, choose an implementation, call it."""

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import check_matrix, check_same_device, refuse
from rac_kernels._choice import choose, native_cpu
from rac_kernels.packed import COLUMNS, Packed2to4, PackedBitmap
from rac_kernels.reference import pack_2to4 as reference_2to4
from rac_kernels.reference import pack_bitmap as reference_bitmap

HALVES = (torch.bfloat16, torch.float16)
PACKABLE = (*HALVES, torch.int8, torch.float8_e4m3fn)


def pack_2to4(weight: Tensor, *, scale: Tensor | None = None, impl: str = "auto") -> Packed2to4:
    """Pack a 2:4 sparse weight to 9/16 of its bytes (5/8 for 8-bit values).

    Args:
        weight: bf16, fp16, int8 or fp8_e4m3 [R, C], at most two non-zeros in every four neighbours
            of a row; C a multiple of 16 (of 32 for 8-bit values). -0.0 is packed as 0.0.
        scale: float32 [R] to keep beside it, see :class:`Packed2to4`.
        impl: "auto", "reference".

    Raises:
        ValueError, TypeError: wrong dtype or shape, or the weight is not 2:4 (names the first group
            with more than two non-zeros).

    Source: CUTLASS's reorder_meta; bit for bit what torch's own conversion makes.
    """
    op = "pack_2to4"
    check_matrix(op, "weight", weight, PACKABLE)
    multiple = COLUMNS[weight.element_size()]
    if weight.shape[1] == 0 or weight.shape[1] % multiple:
        dtype = str(weight.dtype).removeprefix("torch.")
        refuse(op, f"in_features that are a multiple of {multiple} for {dtype}", weight.shape[1])
    if scale is not None:
        if scale.shape != weight.shape[:1] or scale.dtype != torch.float32:
            refuse(op, f"scale float32 [{weight.shape[0]}]", f"{scale.dtype} {list(scale.shape)}")
        check_same_device(op, weight=weight, scale=scale)
    choose(op, impl, {"reference"})
    found = reference_2to4.first_dense_group(weight)
    if found is not None:
        row, column = found
        where = f"more in row {row}, columns {column} to {column + 3}"
        refuse(op, "at most two non-zeros in every four", where)
    return reference_2to4.pack_2to4(weight.contiguous(), scale)


def unpack_2to4(packed: Packed2to4, *, impl: str = "auto") -> Tensor:
    """The dense weight [R, C] in the dtype of the values, ``scale`` not applied.

    Args:
        packed: from :func:`pack_2to4`.
        impl: "auto", "reference".
    """
    choose("unpack_2to4", impl, {"reference"})
    return reference_2to4.unpack_2to4(packed)


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
    if choose(op, impl, {"reference", "native"}, native_cpu(weight)) == "reference":
        return reference_bitmap.pack_bitmap(weight)
    by_rows = weight.stride(1) == 1 and weight.stride(0) >= weight.shape[1]
    return _native.pack_bitmap(weight if by_rows else weight.contiguous())


def unpack_bitmap(packed: PackedBitmap, *, impl: str = "auto") -> Tensor:
    """The dense weight [R, C].

    Args:
        packed: from :func:`pack_bitmap`.
        impl: "auto", "reference", "native" (CPU).
    """
    available = {"reference", "native"}
    if choose("unpack_bitmap", impl, available, native_cpu(packed.values)) == "reference":
        return reference_bitmap.unpack_bitmap(packed)
    return _native.unpack_bitmap(packed)
