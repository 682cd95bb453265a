"""The compiled modules, csrc/. Of tensors they know addresses, strides and sizes alone."""

from rac_kernels._native.capture import capture_, rmsnorm_capture, swiglu_capture
from rac_kernels._native.hessian import hessian_accumulate_
from rac_kernels._native.loading import CPU, CUDA, instruction_set, load, why_missing
from rac_kernels._native.masks import select_mask, select_mask_cuda
from rac_kernels._native.sample import nucleus_sample
from rac_kernels._native.sparsegpt import sparsegpt_block

__all__ = [
    "CPU",
    "CUDA",
    "capture_",
    "hessian_accumulate_",
    "instruction_set",
    "load",
    "nucleus_sample",
    "rmsnorm_capture",
    "select_mask",
    "select_mask_cuda",
    "sparsegpt_block",
    "swiglu_capture",
    "why_missing",
]
