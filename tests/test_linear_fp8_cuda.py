"""The CUDA linear of 2:4 weights in fp8: its own source as coroutines, and on a GPU itself."""

import pytest
import torch
from emulated_linear import (
    A100,
    H100,
    HALF_UNIT,
    RTX_3090,
    UNIT,
    inputs,
    library,
    plan,
    run,
    sparse_weight,
)
from triton_interpreter import sized

from rac_kernels import linear_2to4_fp8, native_status, pack_2to4, quantize_fp8_rows
from rac_kernels._native.linear_cuda import _why_unfit, linear_2to4_fp8_cuda, why_not_cuda
from rac_kernels._native.reorder import reorder_2to4

HALVES = [torch.bfloat16, torch.float16]
SLOT = 5 * 32  # vectors of 16 bytes in a chunk
STAGE = {1: 4 * 2560 + 2048, 2: 4 * 2560 + 4096, 4: 4 * 2560 + 8192, 8: 4 * 2560 + 16384}
emulation = pytest.mark.skipif(isinstance(library(), str), reason=str(library()))


def packed_weight(rows, columns, *, integers=False, device="cpu"):
    """W in float64 and packed, with a scale of 1 if they are integers."""
    weight = sparse_weight(rows, columns, torch.float32, integers=integers, device=device)
    if integers:
        return weight.double(), pack_2to4(weight.to(torch.float8_e4m3fn))
    values, scale = quantize_fp8_rows(weight)
    return values.double() * scale.double()[:, None], pack_2to4(values, scale=scale)


def small_plan(tokens, rows, columns, blocks, stages=3, warps=4):
    """As many blocks as asked for, no more than there are units."""
    tiles = next(t for t in (1, 2, 4, 8) if tokens <= 8 * t)
    units = -(-rows // (32 * warps)) * -(-columns // 128)
    stage = STAGE[tiles] + (warps - 4) * 2560
    return [tiles, warps, stages, min(blocks, units), stage * stages, SLOT]


def emulated(x, packed, shares, *, dtype, bias=None, **how):
    """y [T, R] of x [T, C], rounded to fp8 before."""
    values, scale = quantize_fp8_rows(x)
    how |= {"x_scale": scale, "dtype": dtype, "bias": bias}
    return run(values.half(), packed, reorder_2to4(packed), shares, **how)


def check_exact(tokens, rows, columns, dtype, shares, **how):
    """Small integers beside one of 448, so that scales are 1: any order of sums is exact."""
    weight, packed = packed_weight(rows, columns, integers=True)
    x = inputs(tokens, columns, torch.float32, integers=True)
    x[:, 5] = 448
    y = emulated(x, packed, shares, dtype=dtype, **how)
    assert torch.equal(y, (x.double() @ weight.mT).to(dtype))


def assert_linear(y, x, weight, bias=None):
    """Within float32 sums of exact products, three factors, a bias and one rounding of float64."""
    values, scale = quantize_fp8_rows(x)
    x = values.double() * scale.double()[:, None]
    truth, size = x @ weight.mT, x.abs() @ weight.abs().mT
    if bias is not None:
        truth, size = truth + bias.double(), size + bias.double().abs()
    sums = (x.shape[1] + 5) * UNIT * size
    bound = sums + HALF_UNIT[y.dtype] * (truth.abs() + sums) + 2.0**-24
    error = (y.double() - truth).abs()
    assert bool((error <= bound).all()), f"{float((error / bound).max())} times the bound"


@emulation
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("stages", [2, 5])
@pytest.mark.parametrize(
    ("rows", "columns", "blocks"),
    [(32, 64, 1), (5, 128, 1), (16, 192, 2), (300, 576, 5), (129, 1024, 11)],
)
def test_the_kernels_sums_are_exact_where_float32_is(rows, columns, blocks, stages, early):
    shares = small_plan(11, rows, columns, blocks, stages)
    check_exact(11, rows, columns, HALVES[stages // 5], shares, early=early, seed=stages)


@emulation
@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 63, 64])
def test_numbers_of_tokens(tokens):
    check_exact(tokens, 70, 192, torch.bfloat16, small_plan(tokens, 70, 192, 2))


@emulation
def test_eight_warps():
    check_exact(64, 300, 576, torch.bfloat16, small_plan(64, 300, 576, 7, 4, warps=8))


@emulation
@pytest.mark.parametrize(
    ("device", "tokens", "bias_dtype"),
    [(A100, 1, None), (RTX_3090, 16, "y"), (RTX_3090, 48, None), (H100, 16, torch.float32)],
)
def test_the_plan_of_every_device_gives_the_truth(device, tokens, bias_dtype):
    weight, packed = packed_weight(200, 1088)
    x, bias = inputs(tokens, 1088, torch.bfloat16), None
    if bias_dtype is not None:
        bias = torch.randn(200).to(torch.bfloat16 if bias_dtype == "y" else bias_dtype)
    shares = plan(tokens, 200, 1088, device, slot=SLOT)
    assert shares[2] >= 3 and shares[4] <= device[1]
    assert_linear(emulated(x, packed, shares, dtype=x.dtype, bias=bias), x, weight, bias)


@emulation
def test_every_byte_of_a_weight():
    """Each finite value of e4m3 in each row of a strip, subnormals too, beside one x of 448."""
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().nan_to_num(0)
    weight = torch.zeros(256, 64)
    weight[torch.arange(256), torch.arange(256) * 5 % 64] = every
    x = torch.full((1, 64), 448.0)
    y = emulated(x, pack_2to4(weight.half().to(torch.float8_e4m3fn)), small_plan(1, 256, 64, 2),
                 dtype=torch.bfloat16)  # fmt: skip
    assert torch.equal(y[0], (448 * every).bfloat16())


@emulation
def test_the_same_bits_whichever_block_comes_first():
    weight, packed = packed_weight(100, 1664)
    x = inputs(9, 1664, torch.float16)
    shares = small_plan(9, 100, 1664, 13)
    first = emulated(x, packed, shares, dtype=x.dtype)
    assert_linear(first, x, weight)
    for seed in range(1, 6):
        assert torch.equal(first, emulated(x, packed, shares, dtype=x.dtype, seed=seed))


@pytest.mark.parametrize("rows", [16, 40, 64])
def test_the_reordered_weight_takes_five_eighths_of_a_byte_a_weight(rows):
    _, packed = packed_weight(rows, 256)
    reordered = reorder_2to4(packed)
    strips = -(-rows // 32)
    assert reordered.weight.shape == (strips, 2, 5, 32, 4) and reordered.slot == SLOT
    assert reordered.weight.nbytes == strips * 32 * 256 * 5 // 8
    values = reordered.weight[:, :, :4].contiguous().view(torch.uint8).flatten()
    kept = packed.values.view(torch.uint8).flatten()
    assert torch.equal(values[values > 0].sort().values, kept[kept > 0].sort().values)


def test_why_not_says_why():
    _, packed = packed_weight(16, 64)
    x = inputs(3, 64, torch.bfloat16)
    assert why_not_cuda(x, packed) == "it runs on an NVIDIA GPU, and the tensor is on cpu"
    assert _why_unfit(x, packed) is None and _why_unfit(x.half(), packed) is None
    assert "x in bf16 or fp16, got torch.float32" in _why_unfit(x.float(), packed)
    assert "at most 64 tokens, got 65" in _why_unfit(inputs(65, 64, torch.bfloat16), packed)


def on_gpu(test):
    """Mark what needs a GPU and the compiled module."""
    reason = native_status()["cuda"]
    test = pytest.mark.skipif(reason != "ok", reason=reason)(test)
    test = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")(test)
    return pytest.mark.gpu(test)


FFN, HIDDEN = sized(8960, 128), sized(1536, 64)
SHAPES = [(1, 64), (33, 192), (1000, 960), (FFN, HIDDEN), (HIDDEN, FFN)]
SHAPES += [(sized(18944, 96), sized(3584, 320)), (sized(5120, 160), sized(27648, 128))]


@on_gpu
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_shapes_on_a_gpu(rows, columns, dtype):
    weight, packed = packed_weight(rows, columns, device="cuda")
    bias = torch.randn(rows, device="cuda").to(dtype)
    for tokens in (1, 5, 8, 16, 31, 64):
        x = inputs(tokens, columns, dtype, device="cuda")
        assert why_not_cuda(x, packed) is None
        assert_linear(linear_2to4_fp8(x, packed, bias, impl="native"), x, weight, bias)


@on_gpu
@pytest.mark.parametrize("dtype", HALVES)
def test_sums_are_exact_on_a_gpu_where_float32_is(dtype):
    """A value or a position in the wrong place cannot hide below a bound."""
    weight, packed = packed_weight(sized(777, 77), 2112, integers=True, device="cuda")
    for tokens in (1, 13, 64):
        x = inputs(tokens, 2112, dtype, integers=True, device="cuda")
        x[:, 5] = 448
        y = linear_2to4_fp8(x, packed, impl="native")
        assert torch.equal(y, (x.double() @ weight.mT).to(dtype))


@on_gpu
def test_inside_a_cuda_graph_on_a_gpu():
    weight, packed = packed_weight(FFN, HIDDEN, device="cuda")
    x = inputs(24, HIDDEN, torch.bfloat16, device="cuda")
    linear_2to4_fp8(x, packed, impl="native")  # reorders the weight, compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = linear_2to4_fp8(x, packed, impl="native")
    for seed in range(3):
        x.copy_(inputs(24 + seed, HIDDEN, torch.bfloat16, device="cuda")[:24])
        graph.replay()
        assert torch.equal(y, linear_2to4_fp8(x, packed, impl="native"))
    assert_linear(y, x, weight)


@on_gpu
@pytest.mark.parametrize("tokens", [1, 16, 100])
def test_cusparselt_multiplies_the_same_on_a_gpu(tokens):
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("cuSPARSELt multiplies fp8 from compute capability 9.0 on")
    if not torch.backends.cusparselt.is_available():
        pytest.skip("this torch has no cuSPARSELt")
    _, packed = packed_weight(256, 512, device="cuda")
    x = inputs(tokens, 512, torch.bfloat16, device="cuda")
    ours = linear_2to4_fp8(x, packed, impl="cusparselt")
    plain = linear_2to4_fp8(x.cpu(), packed.to("cpu"), impl="reference")
    # The tensor cores keep about 14 bits of a sum of fp8.
    torch.testing.assert_close(ours.cpu(), plain, rtol=1e-2, atol=1e-2)


def test_no_tokens_launch_nothing():
    _, packed = packed_weight(16, 64)
    values, scale = quantize_fp8_rows(inputs(0, 64, torch.bfloat16))
    y = linear_2to4_fp8_cuda(values, scale, packed, None, torch.bfloat16)
    assert y.shape == (0, 16) and y.dtype == torch.bfloat16
