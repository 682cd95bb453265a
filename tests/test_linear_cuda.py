"""The CUDA linear of 2:4 weights without a GPU: its own source, run as coroutines.

What a GPU alone can say (memory order, the instructions themselves, speed) is in
test_cuda_kernels.py.
"""

import dataclasses

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
    sparse_weight,
)

from rac_kernels._native.linear_cuda import linear_2to4_cuda, why_not_cuda
from rac_kernels._native.reorder import reorder_2to4
from rac_kernels.ops.packing import pack_2to4

HALVES = [torch.bfloat16, torch.float16]
STAGE = {1: 20480, 2: 22528, 4: 26624, 8: 34816}  # bytes, four warps
emulation = pytest.mark.skipif(isinstance(library(), str), reason=str(library()))


def small_plan(tokens, rows, columns, blocks, stages=3, warps=4):
    """As many blocks as asked for, no more than there are units."""
    tiles = next(t for t in (1, 2, 4, 8) if tokens <= 8 * t)
    units = -(-rows // (32 * warps)) * -(-columns // 128)
    stage = STAGE[tiles] if warps == 4 else 53248
    return [tiles, warps, stages, min(blocks, units), stage * stages, 288]


def check_exact(tokens, rows, columns, dtype, plan, **how):
    weight = sparse_weight(rows, columns, dtype, integers=True)
    x = inputs(tokens, columns, dtype, integers=True)
    packed = pack_2to4(weight)
    y = run(x, packed, reorder_2to4(packed), plan, **how)
    assert torch.equal(y, (x.double() @ weight.double().mT).to(dtype))


@emulation
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("stages", [2, 3, 5])
@pytest.mark.parametrize(
    ("rows", "columns", "blocks"),
    [(32, 32, 1), (5, 128, 1), (128, 512, 3), (300, 608, 5), (129, 1024, 11), (260, 2080, 24)],
)
def test_the_kernels_sums_are_exact_where_float32_is(rows, columns, blocks, stages, early, dtype):
    how = {"early": early, "seed": stages}
    check_exact(11, rows, columns, dtype, small_plan(11, rows, columns, blocks, stages), **how)


@emulation
@pytest.mark.parametrize("tokens", range(1, 65))
def test_every_number_of_tokens(tokens):
    check_exact(tokens, 70, 160, torch.bfloat16, small_plan(tokens, 70, 160, 2))


@emulation
@pytest.mark.parametrize("dtype", HALVES)
def test_eight_warps(dtype):
    check_exact(64, 300, 608, dtype, small_plan(64, 300, 608, 7, 4, warps=8))
    check_exact(33, 256, 256, dtype, small_plan(33, 256, 256, 1, 2, warps=8))


@emulation
@pytest.mark.parametrize("tokens", [1, 16, 48])
@pytest.mark.parametrize("device", [A100, RTX_3090, H100])
def test_the_plan_of_every_device_gives_the_truth(device, tokens):
    check_exact(tokens, 200, 1056, torch.bfloat16, plan(tokens, 200, 1056, device))


@emulation
@pytest.mark.parametrize("dtype", HALVES)
def test_the_same_bits_whichever_block_comes_first(dtype):
    """Random values, thirteen pieces a tile: every schedule, one sum; and near float64's."""
    rows, columns, tokens = 100, 1664, 9
    weight, x = sparse_weight(rows, columns, dtype), inputs(tokens, columns, dtype)
    packed = pack_2to4(weight)
    reordered, shares = reorder_2to4(packed), small_plan(tokens, rows, columns, 13)
    first = run(x, packed, reordered, shares)
    assert_linear(first, x, weight)
    for seed in range(1, 12):
        assert torch.equal(first, run(x, packed, reordered, shares, seed=seed))


@emulation
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bias_dtype", [None, torch.float32, "x"])
@pytest.mark.parametrize("scaled", [False, True])
def test_scale_bias_and_strides(dtype, bias_dtype, scaled):
    rows, columns = 77, 352
    weight = sparse_weight(rows, columns, dtype)
    x = inputs(6, columns + 24, dtype)[:, 8:-16]
    packed, bias = pack_2to4(weight), None
    if scaled:
        packed = dataclasses.replace(packed, scale=torch.rand(rows) + 0.5)
    if bias_dtype is not None:
        bias = torch.randn(rows).to(dtype if bias_dtype == "x" else bias_dtype)
    y = run(x, packed, reorder_2to4(packed), small_plan(6, rows, columns, 2), bias=bias)
    assert_linear(y, x, weight, packed.scale, bias)


@emulation
@pytest.mark.parametrize("device", [A100, RTX_3090, H100])
@pytest.mark.parametrize("tokens", [1, 8, 9, 16, 17, 32, 33, 64])
@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 32), (18944, 3584), (3584, 18944), (27648, 5120), (8192, 28672)]
)
def test_plans_fit_and_fill_the_device(device, tokens, rows, columns):
    sms, shared_block, shared_sm = device
    tiles, warps, stages, blocks, shared, _ = plan(tokens, rows, columns, device)
    assert 8 * tiles >= tokens and stages >= 2
    assert shared == stages * (warps * 4608 + tiles * 8 * 256) <= shared_block
    units = -(-rows // (32 * warps)) * -(-columns // 128)
    assert 1 <= blocks <= units and units * blocks < 2**31
    resident = -(-blocks // sms)
    assert resident * (shared + 1024) <= shared_sm
    if rows > 1 and device != RTX_3090:  # 40 KB of W under way in every multiprocessor
        assert blocks % sms == 0 and resident * (stages - 1) * warps * 4608 >= 40 * 1024


def test_a_weight_too_large_for_the_plan_has_none():
    if isinstance(library(), str):
        pytest.skip(library())
    assert plan(1, 1 << 25, 1 << 20, H100) == [0] * 6
    assert plan(1, 128, 128, (68, 16 << 10, 16 << 10)) == [0] * 6  # shared memory


def test_the_reordered_weight_has_its_values_and_no_others():
    packed = pack_2to4(sparse_weight(40, 96, torch.bfloat16))
    reordered = reorder_2to4(packed)
    assert reordered.weight.shape == (2, 1, 9, 32, 4) and reordered.weight.is_contiguous()
    values = reordered.weight[:, :, :8].contiguous().view(torch.int16).flatten()
    expected = torch.nn.functional.pad(packed.values.view(torch.int16), (0, 16)).flatten()
    assert torch.equal(values.sort().values, expected.sort().values)


def test_why_not_says_why():
    packed = pack_2to4(sparse_weight(8, 64, torch.bfloat16))
    x = inputs(3, 64, torch.bfloat16)
    assert why_not_cuda(x, packed) == "it runs on an NVIDIA GPU, and the tensor is on cpu"
    from rac_kernels._native.linear_cuda import _why_unfit

    assert _why_unfit(x, packed) is None
    assert "both in fp16, got torch.float32 and torch.bfloat16" in _why_unfit(x.float(), packed)
    assert "at most 64 tokens, got 65" in _why_unfit(inputs(65, 64, torch.bfloat16), packed)
    assert "it has no backward" in _why_unfit(x.clone().requires_grad_(), packed)
    quarter = dataclasses.replace(packed, values=packed.values[:, :24])
    assert "multiple of 32, got 48" in _why_unfit(x, quarter)


def test_no_rows_or_no_tokens_launch_nothing():
    packed = pack_2to4(sparse_weight(8, 64, torch.bfloat16))
    y = linear_2to4_cuda(inputs(0, 64, torch.bfloat16), packed, None)
    assert y.shape == (0, 8) and y.dtype == torch.bfloat16
