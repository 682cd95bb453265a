"""Capture of rows, alone and in the kernel that makes them, in C++."""

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, DTYPES, PARALLEL, load, threads
from rac_kernels.capture import Ring


def ring_addresses(ring: Ring | None) -> tuple[int, int, int, int]:
    """Addresses of rows, state and active, and the slots; zeros where nothing is captured."""
    if ring is None:
        return 0, 0, 0, 0
    rows, state, active = ring
    where = 0 if active is None else active.data_ptr()
    return rows.data_ptr(), state.data_ptr(), rows.shape[1], where


def cache_addresses(keys: Tensor, values: Tensor) -> tuple:
    """Addresses and strides of keys and values [B, K, S, D]."""
    return keys.data_ptr(), keys.stride()[:3], values.data_ptr(), values.stride()[:3]


def mask_address(mask: Tensor | None) -> tuple[int, int]:
    """Address and stride of a mask [B, S] or None."""
    return (0, 0) if mask is None else (mask.data_ptr(), mask.stride(0))


def _batch_and_stride(x: Tensor) -> tuple[int, int]:
    """Rows of x, contiguous [..., D] or [B, D], and the elements between them."""
    features = x.shape[-1]
    return x.numel() // features, features if x.is_contiguous() else x.stride(0)


def capture_(x: Tensor, ring: Ring) -> None:
    """Append the active rows of x, contiguous [..., D] or [B, D], to the ring."""
    size = x.element_size()
    batch, stride = _batch_and_stride(x)
    load(CPU).capture(x.data_ptr(), stride * size, batch, x.shape[-1] * size, *ring_addresses(ring))


def rmsnorm_capture(x: Tensor, weight: Tensor, eps: float, ring: Ring | None) -> Tensor:
    """RMSNorm of x, contiguous [..., D] or [B, D], float32 or bf16, appended to the ring."""
    batch, stride = _batch_and_stride(x)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    load(CPU).rmsnorm_capture(
        x.data_ptr(),
        stride,
        weight.data_ptr(),
        y.data_ptr(),
        batch,
        x.shape[-1],
        eps,
        DTYPES[x.dtype],
        1 if x.numel() < PARALLEL else threads(),
        *ring_addresses(ring),
    )
    return y


def swiglu_capture(gate: Tensor, up: Tensor, ring: Ring | None) -> Tensor:
    """silu(gate) * up, contiguous [..., D] or [B, D], float32 or bf16, appended to the ring."""
    batch, stride_gate = _batch_and_stride(gate)
    y = torch.empty_like(gate, memory_format=torch.contiguous_format)
    load(CPU).swiglu_capture(
        gate.data_ptr(),
        stride_gate,
        up.data_ptr(),
        _batch_and_stride(up)[1],
        y.data_ptr(),
        batch,
        gate.shape[-1],
        DTYPES[gate.dtype],
        1 if gate.numel() < PARALLEL else threads(),
        *ring_addresses(ring),
    )
    return y


def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float,
    new: tuple[Tensor, Tensor] | None,
    rotary: tuple[Tensor, Tensor] | None,
    ring: Ring | None,
) -> Tensor:
    """Attention of query [B, H, D] over keys, values [B, K, S, D], appended to the ring.

    Heads of query and of `new` lie one after the other, features of everything.
    """
    batch, heads, width = query.shape
    groups, columns = keys.shape[1:3]
    output = torch.empty(query.shape, dtype=query.dtype)
    key = value = cosine = sine = (0, 0)
    if new is not None:
        key, value = ((x.data_ptr(), x.stride(0)) for x in new)
    if rotary is not None:
        cosine, sine = ((x.data_ptr(), x.stride(0)) for x in rotary)
    work = batch * heads * columns * width
    load(CPU).decode_attention(
        query.data_ptr(),
        query.stride(0),
        *key,
        *value,
        cosine[0],
        *sine,
        *cache_addresses(keys, values),
        *mask_address(mask),
        output.data_ptr(),
        scaling,
        (batch, groups, heads // groups, columns, width),
        DTYPES[query.dtype],
        1 if work < PARALLEL else threads(),
        *ring_addresses(ring),
    )
    return output
