"""Nucleus sampling in C++."""

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, DTYPES, PARALLEL, load, threads

GREEDY = 16  # logits that are compared in the time in which one is weighed


def nucleus_sample(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """One draw a row of logits [B, V] on the CPU; the reference's contract."""
    work = logits.numel() // (1 if temperature else GREEDY)
    if logits.dtype == torch.float16:
        logits = logits.float()
    batch, vocabulary = logits.shape
    uniform = uniform.contiguous()
    ids = torch.empty(batch, dtype=torch.long)
    load(CPU).nucleus_sample(
        logits=logits.data_ptr(),
        stride=logits.stride(0),
        uniform=uniform.data_ptr(),
        ids=ids.data_ptr(),
        batch=batch,
        vocabulary=vocabulary,
        temperature=temperature,
        top_p=top_p,
        dtype=DTYPES[logits.dtype],
        threads=1 if work < PARALLEL else min(batch, threads()),
    )
    return ids
