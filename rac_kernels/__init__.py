"""Kernels for pruning: tensors in, tensors out. Needs torch alone to be imported."""

from rac_kernels.capture import CaptureBuffer
from rac_kernels.factor import HessianFactor
from rac_kernels.ops import (
    alps,
    capture_,
    factor_hessian,
    flush_,
    hessian_accumulate_,
    linear_2to4,
    linear_bitmap,
    linear_status,
    magnitude,
    native_status,
    nucleus_sample,
    pack_2to4,
    pack_bitmap,
    rmsnorm_capture,
    select_mask,
    sparsegpt,
    swiglu_capture,
    symmetrize_,
    unpack_2to4,
    unpack_bitmap,
    wanda,
)
from rac_kernels.packed import Packed2to4, PackedBitmap
from rac_kernels.pattern import Pattern
from rac_kernels.triangle import PackedTriangle

__all__ = [
    "CaptureBuffer",
    "HessianFactor",
    "Packed2to4",
    "PackedBitmap",
    "PackedTriangle",
    "Pattern",
    "alps",
    "capture_",
    "factor_hessian",
    "flush_",
    "hessian_accumulate_",
    "linear_2to4",
    "linear_bitmap",
    "linear_status",
    "magnitude",
    "native_status",
    "nucleus_sample",
    "pack_2to4",
    "pack_bitmap",
    "rmsnorm_capture",
    "select_mask",
    "sparsegpt",
    "swiglu_capture",
    "symmetrize_",
    "unpack_2to4",
    "unpack_bitmap",
    "wanda",
]
