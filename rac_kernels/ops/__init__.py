"""The public functions: validate, choose an implementation, call it. A file for each family."""

from rac_kernels.ops.alps import alps
from rac_kernels.ops.attention import decode_attention
from rac_kernels.ops.batch import factor_hessians, sparsegpt_batch
from rac_kernels.ops.caches import KeyValueCaches
from rac_kernels.ops.capture import capture_, flush_, rmsnorm_capture, swiglu_capture
from rac_kernels.ops.dense import linear_dense
from rac_kernels.ops.hessian import (
    factor_hessian,
    hessian_accumulate_,
    native_status,
    symmetrize_,
)
from rac_kernels.ops.layer import DecoderLayer, decode_layers
from rac_kernels.ops.linear import linear_2to4, linear_2to4_fp8, linear_bitmap, linear_status
from rac_kernels.ops.masks import magnitude, select_mask, wanda
from rac_kernels.ops.packing import (
    mask_and_pack_2to4,
    pack_2to4,
    pack_bitmap,
    unpack_2to4,
    unpack_bitmap,
)
from rac_kernels.ops.quantize import quantize_fp8_rows
from rac_kernels.ops.sample import nucleus_sample
from rac_kernels.ops.sparsegpt import sparsegpt

__all__ = [
    "DecoderLayer",
    "KeyValueCaches",
    "alps",
    "capture_",
    "decode_attention",
    "decode_layers",
    "factor_hessian",
    "factor_hessians",
    "flush_",
    "hessian_accumulate_",
    "linear_2to4",
    "linear_2to4_fp8",
    "linear_bitmap",
    "linear_dense",
    "linear_status",
    "magnitude",
    "mask_and_pack_2to4",
    "native_status",
    "nucleus_sample",
    "pack_2to4",
    "pack_bitmap",
    "quantize_fp8_rows",
    "rmsnorm_capture",
    "select_mask",
    "sparsegpt",
    "sparsegpt_batch",
    "swiglu_capture",
    "symmetrize_",
    "unpack_2to4",
    "unpack_bitmap",
    "wanda",
]
