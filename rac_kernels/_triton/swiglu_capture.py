"""silu(gate) * up, appended to a staging ring by the kernel that makes it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rac_kernels._triton.capture import (
    BLOCK_B,
    batch_and_stride,
    column_blocks,
    move_cursor,
    ring_arguments,
    take_slot,
)
from rac_kernels.capture import Ring


@triton.jit
def silu(x):
    """Compute x / (1 + e^-x) within a few float32 ulp; exp2(x * log2(e)) alone errs by |x| ulp."""
    LOG2E: tl.constexpr = 1.4426950408889634
    LN2: tl.constexpr = 0.6931471805599453
    z = tl.minimum(tl.maximum(-x, -128.0), 128.0)  # beyond, e^z is 0 or Inf; NaN comes back as x
    high = z * LOG2E
    low = tl.fma(z, LOG2E, -high) + z * 1.925963033500612e-08  # what rounding took off z log2(e)
    exponential = tl.exp2(high) * (1.0 + low * LN2)
    return tl.div_rn(x, 1.0 + exponential)


@triton.jit
def swiglu_capture_kernel(
    gate_ptr,  # [batch, D]
    up_ptr,  # [batch, D]
    y_ptr,  # [batch, D]
    rows_ptr,  # [2, slots, D] or None: nothing is captured
    state_ptr,  # int32 [4] or None
    active_ptr,  # uint8 [batch] or None
    stride_gb,
    stride_ub,
    batch,
    features,
    slots,
    BLOCK_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """A program is a row and a block of its columns: y = silu(gate).to(dtype) * up."""
    row = tl.program_id(0)
    offs_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask_d = offs_d < features
    gate = tl.load(gate_ptr + row.to(tl.int64) * stride_gb + offs_d, mask=mask_d, other=0.0)
    up = tl.load(up_ptr + row.to(tl.int64) * stride_ub + offs_d, mask=mask_d, other=0.0)
    if rows_ptr is not None:
        cursor, slot, width, ticket = take_slot(
            state_ptr, active_ptr, slots, features, row, BLOCK_B
        )
    activated = silu(gate.to(tl.float32)).to(gate.dtype)  # [BLOCK_D]
    y = (activated.to(tl.float32) * up.to(tl.float32)).to(gate.dtype)  # [BLOCK_D]
    tl.store(y_ptr + row.to(tl.int64) * features + offs_d, y, mask=mask_d)
    if rows_ptr is not None:
        tl.store(rows_ptr + slot * features + offs_d, y, mask=offs_d < width)
        move_cursor(state_ptr, active_ptr, slots, batch, cursor, ticket, BLOCK_B)


def swiglu_capture(gate: Tensor, up: Tensor, ring: Ring | None) -> Tensor:
    """silu(gate) * up, contiguous [..., D] or [B, D]; safe inside a CUDA graph."""
    batch, stride_gate = batch_and_stride(gate)
    features = gate.shape[-1]
    y = torch.empty_like(gate, memory_format=torch.contiguous_format)
    if batch == 0:
        return y
    grid, tile = column_blocks(batch, features)
    with torch.cuda.device_of(gate):
        swiglu_capture_kernel[grid](
            gate,
            up,
            y,
            stride_gb=stride_gate,
            stride_ub=batch_and_stride(up)[1],
            batch=batch,
            features=features,
            BLOCK_B=BLOCK_B,
            **ring_arguments(ring),
            **tile,
        )
    return y
