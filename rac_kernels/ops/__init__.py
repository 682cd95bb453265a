"""The public functions: validate, choose an implementation, call it. A file for each family."""

from rac_kernels.ops.alps import alps
from rac_kernels.ops.capture import capture_, flush_, rmsnorm_capture, swiglu_capture
from rac_kernels.ops.hessian import (
    factor_hessian,
    hessian_accumulate_,
    native_status,
    symmetrize_,
)
from rac_kernels.ops.masks import magnitude, select_mask, wanda
from rac_kernels.ops.sample import nucleus_sample
from rac_kernels.ops.sparsegpt import sparsegpt

__all__ = [
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
