"""SparseGPT in C++."""

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, load
from rac_kernels.pattern import Pattern


def sparsegpt_block(
    values: Tensor, inverse: Tensor, keep: Tensor, pattern: Pattern | None, compat: bool
) -> float:
    """Prune a block of columns in place; same contract and same bits as the reference's."""
    rows, columns = values.shape
    inverse = inverse.contiguous()
    n = m = count = 0
    if pattern is None:
        rule = "given"
    elif pattern.structured:
        rule, n, m = "n:m", pattern.n, pattern.m
    elif compat:
        rule = "threshold"
        count = min(int(values.numel() * pattern.sparsity), values.numel() - 1) + 1
    else:
        rule, count = "count", pattern.count(values.numel())
    return load(CPU).sparsegpt_block(
        values=values.data_ptr(),
        stride_values=values.stride(0),
        inverse=inverse.data_ptr(),
        keep=keep.data_ptr(),
        stride_keep=keep.stride(0),
        rows=rows,
        columns=columns,
        rule=rule,
        count=count,
        n=n,
        m=m,
        threads=torch.get_num_threads(),
    )
