"""The compiled modules, csrc/. Of tensors they know addresses, strides and sizes alone."""

from rac_kernels._native.bitmap import pack_bitmap, unpack_bitmap
from rac_kernels._native.capture import (
    capture_,
    decode_attention,
    rmsnorm_capture,
    swiglu_capture,
)
from rac_kernels._native.hessian import copy_lower_, hessian_accumulate_, reversed_cholesky_
from rac_kernels._native.layer import NativeLayer, cache_places, decode_layers
from rac_kernels._native.linear import linear_dense, linear_packed
from rac_kernels._native.linear_cuda import (
    linear_2to4_cuda,
    linear_2to4_fp8_cuda,
    linear_bitmap_cuda,
    why_not_cuda,
)
from rac_kernels._native.loading import CPU, CUDA, instruction_set, load, use_threads, why_missing
from rac_kernels._native.masks import select_mask, select_mask_cuda
from rac_kernels._native.packing import pack_2to4, unpack_2to4
from rac_kernels._native.quantize import quantize_fp8_rows
from rac_kernels._native.sample import nucleus_sample
from rac_kernels._native.sparsegpt import sparsegpt

__all__ = [
    "CPU",
    "CUDA",
    "NativeLayer",
    "cache_places",
    "capture_",
    "copy_lower_",
    "decode_attention",
    "decode_layers",
    "hessian_accumulate_",
    "instruction_set",
    "linear_2to4_cuda",
    "linear_2to4_fp8_cuda",
    "linear_bitmap_cuda",
    "linear_dense",
    "linear_packed",
    "load",
    "nucleus_sample",
    "pack_2to4",
    "pack_bitmap",
    "quantize_fp8_rows",
    "reversed_cholesky_",
    "rmsnorm_capture",
    "select_mask",
    "select_mask_cuda",
    "sparsegpt",
    "swiglu_capture",
    "unpack_2to4",
    "unpack_bitmap",
    "use_threads",
    "why_missing",
    "why_not_cuda",
]
