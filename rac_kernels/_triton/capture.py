"""Append the active rows of x to a staging ring, in one kernel that a CUDA graph can hold.

Every program reads the cursor and counts the active rows before its own: that is its slot. The
program that draws the last ticket moves the cursor on: by then all have read it. Tickets are drawn
before the rows are moved, so that the atomic's latency hides behind the loads.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rac_kernels.capture import Ring

BLOCK_B = 256  # rows of the activity mask counted at once
# Columns of a program and its warps: many programs while the GPU holds them all, else few tickets.
FEW_ROWS, MANY_ROWS = (1024, 4), (4096, 8)
FEW_PROGRAMS = 1024


@triton.jit
def count_active(active_ptr, rows, BLOCK_B: tl.constexpr):
    """How many of the first ``rows`` are active."""
    if active_ptr is None:
        count = rows
    else:
        count = 0
        for start in range(0, rows, BLOCK_B):
            offs_b = start + tl.arange(0, BLOCK_B)
            active = tl.load(active_ptr + offs_b, mask=offs_b < rows, other=0)  # [BLOCK_B]
            count += tl.sum((active != 0).to(tl.int32), axis=0)
    return count


@triton.jit
def take_slot(state_ptr, active_ptr, slots, features, row, BLOCK_B: tl.constexpr):
    """The cursor, this row's slot in [2 * slots], its columns to write (all or none), a ticket."""
    cursor = tl.load(state_ptr)
    half = tl.load(state_ptr + 1)
    slot = cursor + count_active(active_ptr, row, BLOCK_B)
    keep = slot < slots
    if active_ptr is not None:
        keep = keep & (tl.load(active_ptr + row) != 0)
    tl.debug_barrier()  # all threads of the program have read the cursor when its ticket is drawn
    ticket = tl.atomic_add(state_ptr + 2, 1, sem="acq_rel")
    return cursor, (half * slots + slot).to(tl.int64), keep.to(tl.int32) * features, ticket


@triton.jit
def move_cursor(state_ptr, active_ptr, slots, batch, cursor, ticket, BLOCK_B: tl.constexpr):
    """In the program with the last ticket: cursor += active rows, and what did not fit is noted."""
    if ticket == tl.num_programs(0) * tl.num_programs(1) - 1:
        end = cursor + count_active(active_ptr, batch, BLOCK_B)
        lost = tl.maximum(end - tl.maximum(cursor, slots), 0)
        tl.store(state_ptr, end)
        tl.store(state_ptr + 2, 0)
        tl.store(state_ptr + 3, tl.load(state_ptr + 3) + lost)


@triton.jit
def capture_kernel(
    x_ptr,  # [batch, D]
    rows_ptr,  # [2, slots, D]
    state_ptr,  # int32 [4]
    active_ptr,  # uint8 [batch] or None
    stride_xb,
    batch,
    features,
    slots,
    BLOCK_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """A program is a row of x and a block of its columns."""
    row = tl.program_id(0)
    offs_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask_d = offs_d < features
    x = tl.load(x_ptr + row.to(tl.int64) * stride_xb + offs_d, mask=mask_d, other=0.0)  # [BLOCK_D]
    cursor, slot, width, ticket = take_slot(state_ptr, active_ptr, slots, features, row, BLOCK_B)
    tl.store(rows_ptr + slot * features + offs_d, x, mask=offs_d < width)
    move_cursor(state_ptr, active_ptr, slots, batch, cursor, ticket, BLOCK_B)


def column_blocks(batch: int, features: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Grid and tile of a kernel whose programs are a row and a block of columns."""
    block, warps = FEW_ROWS
    if batch * triton.cdiv(features, block) > FEW_PROGRAMS:
        block, warps = MANY_ROWS
    return (batch, triton.cdiv(features, block)), {"BLOCK_D": block, "num_warps": warps}


def ring_arguments(ring: Ring | None) -> dict[str, object]:
    """What every capturing kernel is told of the ring; Nones where there is none."""
    if ring is None:
        return {"rows_ptr": None, "state_ptr": None, "active_ptr": None, "slots": 0}
    active = None if ring.active is None else ring.active.view(torch.uint8)
    slots = ring.rows.shape[1]
    return {"rows_ptr": ring.rows, "state_ptr": ring.state, "active_ptr": active, "slots": slots}


def batch_and_stride(x: Tensor) -> tuple[int, int]:
    """Rows of x, contiguous [..., D] or [B, D], and the elements between them."""
    features = x.shape[-1]
    return x.numel() // features, features if x.is_contiguous() else x.stride(0)


def capture_(x: Tensor, ring: Ring) -> None:
    """Append the active rows of x, contiguous [..., D] or [B, D]; safe inside a CUDA graph."""
    batch, stride = batch_and_stride(x)
    features = x.shape[-1]
    if batch == 0:
        return
    grid, tile = column_blocks(batch, features)
    with torch.cuda.device_of(x):
        capture_kernel[grid](
            x,
            stride_xb=stride,
            batch=batch,
            features=features,
            BLOCK_B=BLOCK_B,
            **ring_arguments(ring),
            **tile,
        )
