"""RMSNorm, its output appended to a staging ring by the kernel that makes it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rac_kernels._triton.capture import (
    BLOCK_B,
    batch_and_stride,
    move_cursor,
    ring_arguments,
    take_slot,
)
from rac_kernels.capture import Ring

WARP_D = 512  # columns of a warp: two 16-byte loads of bf16 a thread
MAX_WARPS = 32


@triton.jit
def rmsnorm_capture_kernel(
    x_ptr,  # [batch, D]
    weight_ptr,  # [D]
    y_ptr,  # [batch, D]
    rows_ptr,  # [2, slots, D] or None: nothing is captured
    state_ptr,  # int32 [4] or None
    active_ptr,  # uint8 [batch] or None
    stride_xb,
    batch,
    features,
    slots,
    eps,
    BLOCK_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """A program is a whole row, held in registers: y = weight * (x / rms).to(dtype)."""
    row = tl.program_id(0)
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < features
    x = tl.load(x_ptr + row.to(tl.int64) * stride_xb + offs_d, mask=mask_d, other=0.0)  # [BLOCK_D]
    weight = tl.load(weight_ptr + offs_d, mask=mask_d, other=0.0)  # [BLOCK_D]
    if rows_ptr is not None:
        cursor, slot, width, ticket = take_slot(
            state_ptr, active_ptr, slots, features, row, BLOCK_B
        )
    wide = x.to(tl.float32)
    variance = tl.sum(wide * wide, axis=0) / features
    normed = (wide * tl.rsqrt(variance + eps)).to(x.dtype)
    y = (weight.to(tl.float32) * normed.to(tl.float32)).to(x.dtype)  # [BLOCK_D]
    tl.store(y_ptr + row.to(tl.int64) * features + offs_d, y, mask=mask_d)
    if rows_ptr is not None:
        tl.store(rows_ptr + slot * features + offs_d, y, mask=offs_d < width)
        move_cursor(state_ptr, active_ptr, slots, batch, cursor, ticket, BLOCK_B)


def row_tile(features: int) -> dict[str, int]:
    """Tile of a program that holds a row of ``features``."""
    block = triton.next_power_of_2(features)
    return {"BLOCK_D": block, "num_warps": min(max(block // WARP_D, 4), MAX_WARPS)}


def rmsnorm_capture(x: Tensor, weight: Tensor, eps: float, ring: Ring | None) -> Tensor:
    """RMSNorm of x, contiguous [..., D] or [B, D], weight [D]; safe inside a CUDA graph."""
    batch, stride = batch_and_stride(x)
    features = x.shape[-1]
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    if batch == 0:
        return y
    with torch.cuda.device_of(x):
        rmsnorm_capture_kernel[(batch,)](
            x,
            weight,
            y,
            stride_xb=stride,
            batch=batch,
            features=features,
            eps=eps,
            BLOCK_B=BLOCK_B,
            **ring_arguments(ring),
            **row_tile(features),
        )
    return y
