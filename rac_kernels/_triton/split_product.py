"""Float32 matrix products on tensor cores: TF32 operands in two parts, three products.

    x = high + low,  high = x rounded to TF32's 11 bits,  low = x - high
    a b = high_a high_b + high_a low_b + low_a high_b    (low_a low_b: 2^-22 of |a| |b|)

TF32 alone (2^-11) changes masks. Tensor cores round sums towards zero, so an accumulator takes
SEGMENT products at most before it is added, rounded to nearest, to the sum.
"""

import triton
import triton.language as tl


@triton.jit
def high_part(x):
    """Float32 rounded to the 11 significant bits that TF32 holds."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def add_product(acc, a, b_high, b_low):
    """Return acc + a [M, K] @ (b_high + b_low) [K, N], small terms first."""
    a_high = high_part(a)
    acc = tl.dot(a - a_high, b_high, acc, input_precision="tf32")
    acc = tl.dot(a_high, b_low, acc, input_precision="tf32")
    return tl.dot(a_high, b_high, acc, input_precision="tf32")


@triton.jit
def carry_kernel(
    upper_ptr,  # U [C, C]
    inverse_ptr,  # U_bb^-1 [B, B], contiguous
    high_ptr,  # [B, C]
    low_ptr,  # [B, C]
    start,
    width,
    stride_ui,
    stride_uj,
    stride_carry,
    BLOCK_B: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The parts of (U_{<b,b} U_bb^-1)^T [B, start]: transposed, products run along its rows."""
    offs_i = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    offs_b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_i, mask_b = (offs_i < start)[None, :], (offs_b < width)[:, None]
    acc = tl.zeros((BLOCK_B, BLOCK_I), tl.float32)
    for k in range(0, width, BLOCK_K):
        offs_k = k + tl.arange(0, BLOCK_K)
        inverse = tl.load(
            inverse_ptr + offs_k[None, :] * width + offs_b[:, None],
            mask=mask_b & (offs_k < width)[None, :],
            other=0.0,
        )  # transposed: [BLOCK_B, BLOCK_K]
        column = (start + offs_k)[:, None].to(tl.int64)
        upper = tl.load(
            upper_ptr + column * stride_uj + offs_i[None, :].to(tl.int64) * stride_ui,
            mask=mask_i & (offs_k < width)[:, None],
            other=0.0,
        )  # transposed: [BLOCK_K, BLOCK_I]
        high = high_part(upper)
        acc = add_product(acc, inverse, high, upper - high)
    offs = offs_b[:, None].to(tl.int64) * stride_carry + offs_i[None, :]
    high = high_part(acc)
    tl.store(high_ptr + offs, high, mask=mask_b & mask_i)
    tl.store(low_ptr + offs, acc - high, mask=mask_b & mask_i)


@triton.jit(do_not_specialize=["rows"])
def values_kernel(
    weight_ptr,  # [R, C]
    dead_ptr,  # bool [C]
    delta_ptr,  # D [R, C], float32
    high_ptr,  # [B, C]: carry_kernel's
    low_ptr,
    values_ptr,  # [R, B], float32, contiguous
    rows,
    start,
    width,
    stride_weight,
    stride_delta,
    stride_carry,
    BLOCK_R: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SEGMENT: tl.constexpr,
):
    """Block b before its solve: W_b - D_{<b} (U_{<b,b} U_bb^-1), dead columns 0."""
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    col = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_r, mask_b = (row < rows)[:, None], (col < width)
    row = row[:, None].to(tl.int64)
    acc = tl.zeros((BLOCK_R, BLOCK_B), tl.float32)
    for first in range(0, start, SEGMENT):
        part = tl.zeros((BLOCK_R, BLOCK_B), tl.float32)
        for k in range(first, tl.minimum(first + SEGMENT, start), BLOCK_K):
            offs_k = k + tl.arange(0, BLOCK_K)
            mask_k = (offs_k < start)[None, :]
            delta = tl.load(
                delta_ptr + row * stride_delta + offs_k[None, :], mask=mask_r & mask_k, other=0.0
            )  # [BLOCK_R, BLOCK_K]
            offs = col[:, None].to(tl.int64) * stride_carry + offs_k[None, :]
            high = tl.load(high_ptr + offs, mask=mask_b[:, None] & mask_k, other=0.0)
            low = tl.load(low_ptr + offs, mask=mask_b[:, None] & mask_k, other=0.0)
            part = add_product(part, delta, tl.trans(high), tl.trans(low))
        acc += part
    live = mask_b & (tl.load(dead_ptr + start + col, mask=mask_b, other=1) == 0)
    original = tl.load(
        weight_ptr + row * stride_weight + start + col[None, :],
        mask=mask_r & live[None, :],
        other=0.0,
    ).to(tl.float32)
    tl.store(values_ptr + row * width + col[None, :], original - acc, mask=mask_r & mask_b[None, :])
