"""The compiled modules: imported when first called, and why they are missing when they are.

csrc/ knows no tensors: addresses, strides and sizes go in as integers.
"""

import functools
import importlib
import types

import torch
from torch import Tensor

from rac_kernels.capture import Ring
from rac_kernels.pattern import Pattern
from rac_kernels.triangle import PackedTriangle

# What this file expects of the compiled modules; csrc/interface.h carries the same number.
INTERFACE = 2
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


# Multiply-adds from which a second thread pays for being woken.
_PARALLEL_MULTIPLY_ADDS = 1 << 21


def hessian_accumulate_(
    hessian: Tensor | PackedTriangle, x: Tensor, row_weight: Tensor | None
) -> Tensor | PackedTriangle:
    """Add ``sum_t w_t x_t x_t^T`` of x [T, D] on and below the diagonal of ``hessian``."""
    packed = isinstance(hessian, PackedTriangle)
    values = hessian.data if packed else hessian
    rows, features = x.shape
    if row_weight is not None:
        row_weight = row_weight.float().contiguous()
    small = rows * features**2 < 2 * _PARALLEL_MULTIPLY_ADDS
    _load(CPU).hessian_accumulate(
        hessian=values.data_ptr(),
        stride_hessian=0 if packed else values.stride(0),
        packed=packed,
        x=x.data_ptr(),
        stride_x=x.stride(0),
        dtype=_DTYPES[x.dtype],
        row_weight=0 if row_weight is None else row_weight.data_ptr(),
        rows=rows,
        features=features,
        threads=1 if small else torch.get_num_threads(),
    )
    return hessian


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


# Elements from which a second thread pays for being woken.
_PARALLEL = 1 << 18


def _ring_addresses(ring: Ring | None) -> tuple[int, int, int, int]:
    """Addresses of rows, state and active, and the slots; zeros where nothing is captured."""
    if ring is None:
        return 0, 0, 0, 0
    rows, state, active = ring
    where = 0 if active is None else active.data_ptr()
    return rows.data_ptr(), state.data_ptr(), rows.shape[1], where


def _batch_and_stride(x: Tensor) -> tuple[int, int]:
    """Rows of x, contiguous [..., D] or [B, D], and the elements between them."""
    features = x.shape[-1]
    return x.numel() // features, features if x.is_contiguous() else x.stride(0)


def capture_(x: Tensor, ring: Ring) -> None:
    """Append the active rows of x, contiguous [..., D] or [B, D], to the ring."""
    size = x.element_size()
    batch, stride = _batch_and_stride(x)
    _load(CPU).capture(
        x.data_ptr(), stride * size, batch, x.shape[-1] * size, *_ring_addresses(ring)
    )


def rmsnorm_capture(x: Tensor, weight: Tensor, eps: float, ring: Ring | None) -> Tensor:
    """RMSNorm of x, contiguous [..., D] or [B, D], float32 or bf16, appended to the ring."""
    batch, stride = _batch_and_stride(x)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    _load(CPU).rmsnorm_capture(
        x.data_ptr(),
        stride,
        weight.data_ptr(),
        y.data_ptr(),
        batch,
        x.shape[-1],
        eps,
        _DTYPES[x.dtype],
        1 if x.numel() < _PARALLEL else torch.get_num_threads(),
        *_ring_addresses(ring),
    )
    return y


def swiglu_capture(gate: Tensor, up: Tensor, ring: Ring | None) -> Tensor:
    """silu(gate) * up, contiguous [..., D] or [B, D], float32 or bf16, appended to the ring."""
    batch, stride_gate = _batch_and_stride(gate)
    y = torch.empty_like(gate, memory_format=torch.contiguous_format)
    _load(CPU).swiglu_capture(
        gate.data_ptr(),
        stride_gate,
        up.data_ptr(),
        _batch_and_stride(up)[1],
        y.data_ptr(),
        batch,
        gate.shape[-1],
        _DTYPES[gate.dtype],
        1 if gate.numel() < _PARALLEL else torch.get_num_threads(),
        *_ring_addresses(ring),
    )
    return y


def nucleus_sample(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """One draw a row of logits [B, V] on the CPU; the reference's contract."""
    if logits.dtype == torch.float16:
        logits = logits.float()
    batch, vocabulary = logits.shape
    uniform = uniform.contiguous()
    ids = torch.empty(batch, dtype=torch.long)
    _load(CPU).nucleus_sample(
        logits=logits.data_ptr(),
        stride=logits.stride(0),
        uniform=uniform.data_ptr(),
        ids=ids.data_ptr(),
        batch=batch,
        vocabulary=vocabulary,
        temperature=temperature,
        top_p=top_p,
        dtype=_DTYPES[logits.dtype],
        threads=1 if logits.numel() < _PARALLEL else min(batch, torch.get_num_threads()),
    )
    return ids
