"""The CUDA linear of bitmap weights without a GPU: its own source, run as coroutines."""

import pytest
import torch
from emulated_linear import (
    A100,
    H100,
    RTX_3090,
    assert_linear,
    inputs,
    library,
    plan,
    run,
    scattered_weight,
)

from rac_kernels._native.linear_cuda import _why_unfit, linear_bitmap_cuda
from rac_kernels._native.reorder import CHUNK_BITMAP, reorder_bitmap
from rac_kernels.ops.packing import pack_bitmap

HALVES = [torch.bfloat16, torch.float16]
emulation = pytest.mark.skipif(isinstance(library(), str), reason=str(library()))


def small_plan(tokens, rows, columns, slot, blocks, stages=3, warps=4):
    """As many blocks as asked for, no more than there are units."""
    tiles = next(t for t in (1, 2, 4, 8) if tokens <= 8 * t)
    units = -(-rows // (32 * warps)) * -(-columns // CHUNK_BITMAP)
    stage = 16 * (warps * slot + tiles * CHUNK_BITMAP)
    return [tiles, warps, stages, min(blocks, units), stage * stages, slot]


def check_exact(weight, tokens, blocks, stages=3, warps=4, **how):
    rows, columns = weight.shape
    x = inputs(tokens, columns, weight.dtype, integers=True)
    packed = pack_bitmap(weight)
    reordered = reorder_bitmap(packed)
    shares = small_plan(tokens, rows, columns, reordered.slot, blocks, stages, warps)
    y = run(x, packed, reordered, shares, **how)
    assert torch.equal(y, (x.double() @ weight.double().mT).to(weight.dtype))


@emulation
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("stages", [2, 5])
@pytest.mark.parametrize(
    ("rows", "columns", "blocks"),
    [(32, 64, 1), (5, 8, 1), (128, 512, 3), (300, 600, 5), (129, 1000, 11)],
)
def test_the_kernels_sums_are_exact_where_float32_is(rows, columns, blocks, stages, early, dtype):
    weight = scattered_weight(rows, columns, dtype, integers=True)
    check_exact(weight, 11, blocks, stages, early=early, seed=stages)


@emulation
@pytest.mark.parametrize("tokens", range(1, 65))
def test_every_number_of_tokens(tokens):
    check_exact(scattered_weight(70, 152, torch.bfloat16, integers=True), tokens, 2)


@emulation
def test_eight_warps():
    weight = scattered_weight(300, 608, torch.bfloat16, integers=True)
    check_exact(weight, 64, 7, 3, warps=8)


@emulation
@pytest.mark.parametrize("dtype", HALVES)
def test_chunks_that_are_empty_full_or_one_value(dtype):
    weight = torch.zeros(96, 256)
    weight[:32, :64] = 1
    weight[31, 127], weight[32, 128], weight[70, 200] = 2, 3, -4
    weight[64:, 192:] -= torch.eye(32, 64)
    check_exact(weight.to(dtype), 5, 2)
    check_exact(torch.zeros(40, 72, dtype=dtype), 5, 1)
    check_exact(torch.ones(40, 72, dtype=dtype), 5, 1)


@emulation
@pytest.mark.parametrize("device", [A100, RTX_3090, H100])
@pytest.mark.parametrize("tokens", [1, 16, 48])
def test_the_plan_of_every_device_gives_the_truth(device, tokens):
    weight = scattered_weight(200, 520, torch.bfloat16)
    packed, x = pack_bitmap(weight), inputs(tokens, 520, torch.bfloat16)
    reordered, bias = reorder_bitmap(packed), torch.randn(200)
    shares = plan(tokens, 200, 520, device, chunk=CHUNK_BITMAP, slot=reordered.slot)
    assert shares[2] >= 3 and shares[4] <= device[1]
    assert_linear(run(x, packed, reordered, shares, bias=bias), x, weight, bias=bias)


@emulation
def test_the_same_bits_whichever_block_comes_first():
    weight, x = scattered_weight(100, 832, torch.bfloat16), inputs(9, 832, torch.bfloat16)
    packed = pack_bitmap(weight)
    reordered = reorder_bitmap(packed)
    shares = small_plan(9, 100, 832, reordered.slot, 13)
    first = run(x, packed, reordered, shares)
    assert_linear(first, x, weight)
    for seed in range(1, 8):
        assert torch.equal(first, run(x, packed, reordered, shares, seed=seed))


def test_batches_of_rows_change_nothing(monkeypatch):
    packed = pack_bitmap(scattered_weight(100, 200, torch.bfloat16))
    whole = reorder_bitmap(packed)
    monkeypatch.setattr("rac_kernels._native.reorder.BATCH", 1)
    parts = reorder_bitmap(packed)
    assert torch.equal(whole.weight, parts.weight) and torch.equal(whole.starts, parts.starts)
    assert whole.slot == parts.slot == int(whole.starts.diff().max())


def test_half_of_the_weights_take_little_more_than_the_packed_file():
    packed = pack_bitmap(scattered_weight(512, 4096, torch.bfloat16))
    # Counts and what fills a last vector: 5% of 1.125 bytes a weight.
    assert reorder_bitmap(packed).weight.nbytes / (512 * 4096) < 1.05 * 1.125


def test_why_not_says_why_and_no_tokens_launch_nothing():
    packed = pack_bitmap(scattered_weight(8, 60, torch.bfloat16))
    x = inputs(3, 60, torch.bfloat16)
    assert "multiple of 8, got 60" in _why_unfit(x, packed)
    assert "both in fp16" in _why_unfit(x.half(), packed)
    assert linear_bitmap_cuda(x[:0], packed, None).shape == (0, 8)
