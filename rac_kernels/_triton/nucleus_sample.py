"""One draw a row from the nucleus of softmax(logits / temperature), without sorting the row.

    statistics_kernel   maximum and sum of weights of every BLOCK_V logits
    nucleus_kernel      a program a row: copies the ids that can belong, in their order, to a
                        workspace, finds the last that belongs, draws

At most CAPACITY ids have a probability above 1 / CAPACITY. Where those reach top_p, which is so
unless a distribution is very broad, only they are copied and looked at again: two reads of the
logits, which is the floor as the maximum has to be known first. [128, 152064] in fp32 is 78 MB: at
4.3 TB/s 18 us a read. For a broad distribution the search runs over the logits: some 24 bits of a
key, log2(5) of them a read, so about 14 reads in all. With top_p = 1 there are two.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from rac_kernels._triton.nucleus import (
    FLOAT_MAX,
    LOWEST,
    NEG_INF,
    collect_candidates,
    draw,
    draw_nucleus,
    key_of,
    weight_of,
)

BLOCK_V = 4096  # logits of a step over the row
BLOCK_N = 1024  # copied ids of a step
WAYS_V, WAYS_N = 4, 16  # bounds tried at once in the search: [WAYS, BLOCK] are in registers
CAPACITY = 16384  # ids copied to the workspace


@triton.jit
def statistics_kernel(
    logits_ptr,  # [B, V], rows stride_b apart
    maxima_ptr,  # fp32 [B, parts]
    sums_ptr,  # fp32 [B, parts]: of weights relative to the part's maximum
    vocabulary,
    stride_b,
    scale,
    BLOCK_V: tl.constexpr,
):
    """Maximum and sum of weights of one part of a row."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offs = part * BLOCK_V + tl.arange(0, BLOCK_V)
    values = tl.load(logits_ptr + row * stride_b + offs, mask=offs < vocabulary, other=NEG_INF)
    values = values.to(tl.float32)  # [BLOCK_V]
    # Finite even if all are -Inf. NaN and +Inf make the sum NaN, whatever max makes of them.
    maximum = tl.maximum(tl.max(values, 0), -FLOAT_MAX)
    where = row * tl.num_programs(1) + part
    tl.store(maxima_ptr + where, maximum)
    tl.store(sums_ptr + where, tl.sum(weight_of(maximum - values, scale), 0))


# Aligned logits would be read 16 bytes a thread, and every address of collect_candidates' stores
# would go through shared memory to be spread over the threads another way.
@triton.jit(do_not_specialize_on_alignment=["logits_ptr"])
def nucleus_kernel(
    logits_ptr,  # [B, V], rows stride_b apart
    uniform_ptr,  # fp32 [B], stride_u apart
    maxima_ptr,  # fp32 [B, parts]
    sums_ptr,  # fp32 [B, parts]
    values_ptr,  # fp32 [B, capacity]: workspace
    ids_ptr,  # int32 [B, capacity]: workspace
    out_ptr,  # int64 [B]
    vocabulary,
    stride_b,
    stride_u,
    parts,
    capacity,
    scale,
    top_p,
    few,  # log2 of the least probability that is copied
    broad,  # log2 of a probability that everything in the nucleus has
    TRUNCATE: tl.constexpr,
    PARTS: tl.constexpr,
    WAYS_V: tl.constexpr,
    WAYS_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Draw one id of a row; -1 where its weights have no sum."""
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, PARTS)
    maxima = tl.load(maxima_ptr + row * parts + offs, mask=offs < parts, other=-FLOAT_MAX)
    sums = tl.load(sums_ptr + row * parts + offs, mask=offs < parts, other=0.0)  # [PARTS]
    maximum = tl.max(maxima, 0)
    total = tl.sum(sums * weight_of(maximum - maxima, scale), 0)
    uniform = tl.load(uniform_ptr + row * stride_u)
    logits_ptr += row * stride_b
    values_ptr += row * capacity
    ids_ptr += row * capacity
    chosen = tl.full((), -1, tl.int32)
    if total > 0:
        if TRUNCATE:
            target = tl.maximum(top_p * total, 1e-37)  # above 0 whatever top_p is
            near = key_of(few + tl.log2(total), scale)
            far = key_of(tl.maximum(broad + tl.log2(total), LOWEST), scale)
            count, mass = collect_candidates(
                logits_ptr,
                values_ptr,
                ids_ptr,
                vocabulary,
                maximum,
                scale,
                near,
                capacity,
                BLOCK_V,
            )
            if mass >= target:
                none = tl.full((), -1, tl.int32)
                position = draw_nucleus(
                    values_ptr, count, 0.0, scale, target, none, far, uniform, WAYS_N, BLOCK_N
                )
                chosen = tl.load(ids_ptr + position)
            else:
                chosen = draw_nucleus(
                    logits_ptr,
                    vocabulary,
                    maximum,
                    scale,
                    target,
                    near,
                    far,
                    uniform,
                    WAYS_V,
                    BLOCK_V,
                )
        else:
            everything = tl.full((), 0x7F800000, tl.int32)  # the key of +Inf
            none = tl.full((), 0, tl.int32)
            chosen = draw(
                logits_ptr, vocabulary, maximum, scale, uniform * total, everything, none, BLOCK_V
            )
    tl.store(out_ptr + row, chosen.to(tl.int64))


def nucleus_sample(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """One draw a row of logits [B, V]; the reference's contract. Safe inside a CUDA graph."""
    batch, vocabulary = logits.shape
    chosen = torch.empty(batch, dtype=torch.long, device=logits.device)
    if batch == 0:
        return chosen
    scale = max(math.log2(math.e) / temperature, torch.finfo(torch.float32).tiny)
    parts, capacity = triton.cdiv(vocabulary, BLOCK_V), min(CAPACITY, vocabulary)
    maxima, sums = logits.new_empty(2, batch, parts, dtype=torch.float32)
    values = logits.new_empty(batch, capacity, dtype=torch.float32)
    ids = logits.new_empty(batch, capacity, dtype=torch.int32)
    # Ids less likely than (1 - top_p) / V together weigh less than 1 - top_p.
    broad = math.log2(max(1 - top_p, 2**-30) / vocabulary) - 1e-3
    few = broad if vocabulary <= CAPACITY else max(broad, 1e-4 - math.log2(CAPACITY))
    with torch.cuda.device_of(logits):
        statistics_kernel[(batch, parts)](
            logits, maxima, sums, vocabulary, logits.stride(0), scale, BLOCK_V=BLOCK_V, num_warps=8
        )
        nucleus_kernel[(batch,)](
            logits,
            uniform,
            maxima,
            sums,
            values,
            ids,
            chosen,
            vocabulary,
            logits.stride(0),
            uniform.stride(0),
            parts,
            capacity,
            scale,
            top_p,
            few,
            broad,
            TRUNCATE=top_p < 1,
            PARTS=triton.next_power_of_2(parts),
            WAYS_V=WAYS_V,
            WAYS_N=WAYS_N,
            BLOCK_V=BLOCK_V,
            BLOCK_N=BLOCK_N,
            num_warps=16,
        )
    return chosen
