"""Kernels for pruning: tensors in, tensors out. Needs torch alone to be imported."""

from rac_kernels.factor import HessianFactor
from rac_kernels.ops import (
    factor_hessian,
    hessian_accumulate_,
    magnitude,
    native_status,
    select_mask,
    sparsegpt,
    symmetrize_,
    wanda,
)
from rac_kernels.pattern import Pattern

__all__ = [
    "HessianFactor",
    "Pattern",
    "factor_hessian",
    "hessian_accumulate_",
    "magnitude",
    "native_status",
    "select_mask",
    "sparsegpt",
    "symmetrize_",
    "wanda",
]
