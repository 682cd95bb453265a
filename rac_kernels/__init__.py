"""Kernels for pruning: tensors in, tensors out. Needs torch alone to be imported."""

from rac_kernels.capture import CaptureBuffer
from rac_kernels.factor import HessianFactor
from rac_kernels.ops import (
    alps,
    capture_,
    factor_hessian,
    flush_,
    hessian_accumulate_,
    magnitude,
    native_status,
    nucleus_sample,
    rmsnorm_capture,
    select_mask,
    sparsegpt,
    swiglu_capture,
    symmetrize_,
    wanda,
)
from rac_kernels.pattern import Pattern
from rac_kernels.triangle import PackedTriangle

__all__ = [
    "CaptureBuffer",
    "HessianFactor",
    "PackedTriangle",
    "Pattern",
    "alps",
    "capture_",
    "factor_hessian",
    "flush_",
    "hessian_accumulate_",
    "magnitude",
    "native_status",
    "nucleus_sample",
    "rmsnorm_capture",
    "select_mask",
    "sparsegpt",
    "swiglu_capture",
    "symmetrize_",
    "wanda",
]
