"""The compiled modules: imported when first called, and why they are missing when they are.

csrc/ knows no tensors: addresses, strides and sizes go in as integers.
"""

import functools
import importlib
import types

import torch
from torch import Tensor

from rac_kernels.pattern import Pattern

# What this file expects of the compiled modules; csrc/interface.h carries the same number.
INTERFACE = 1
CPU, CUDA = "rac_kernels._C_cpu", "rac_kernels._C_cuda"
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_REBUILD = "rebuild it with 'pip install --no-build-isolation -e .'"


@functools.cache
def _load(name: str) -> types.ModuleType | str:
    """Import the compiled module, or say in one line why it cannot be used."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        compiler = "CUDA compiler (nvcc)" if name == CUDA else "C++ compiler"
        return f"{name} was not built: no working {compiler} at install time; {_REBUILD}"
    except ImportError as error:
        return f"{name} was built but does not load ({error}); {_REBUILD}"
    found = getattr(module, "INTERFACE", None)
    if found == INTERFACE:
        return module
    return f"{name} was built from other sources (interface {found}, not {INTERFACE}); {_REBUILD}"


def why_missing(device: str) -> str | None:
    """None when the compiled module for ``device`` ("cpu" or "cuda") loads, else the reason."""
    loaded = _load(CUDA if device == "cuda" else CPU)
    return loaded if isinstance(loaded, str) else None


def instruction_set() -> str:
    """Name what the C++ kernels run on here: "avx512", "avx2" or "baseline"."""
    return _load(CPU).instruction_set()


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
    return _load(CPU).sparsegpt_block(
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


def select_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """Keep-mask of an n:m pattern for contiguous ``scores`` [R, C] on the CPU or a GPU."""
    keep = torch.empty_like(scores, dtype=torch.bool)
    sizes = {"groups": scores.numel() // pattern.m, "n": pattern.n, "m": pattern.m}
    addresses = {"scores": scores.data_ptr(), "keep": keep.data_ptr()}
    dtype = _DTYPES[scores.dtype]
    if scores.device.type == "cpu":
        _load(CPU).select_mask(**addresses, **sizes, dtype=dtype, threads=torch.get_num_threads())
        return keep
    with torch.cuda.device(scores.device):
        stream = torch.cuda.current_stream().cuda_stream
        _load(CUDA).select_mask(**addresses, **sizes, dtype=dtype, stream=stream)
    return keep
