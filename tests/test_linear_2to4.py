"""x W^T with a 2:4 weight: every implementation against float64."""

import pytest
import torch
from instruction_sets import every_bf16_set
from numeric import native
from sparse_linear import (
    TOKENS,
    assert_is_product,
    every_half,
    implementation,
    inputs,
    sparse_weight,
)

from rac_kernels import _native, linear_2to4, linear_choice, pack_2to4, unpack_2to4

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
WEIGHTS = [torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn]


def packed_weight(rows, columns, dtype=torch.bfloat16):
    weight = sparse_weight(rows, columns, dtype)
    scale = torch.rand(rows) + 0.5 if dtype.itemsize == 1 else None
    return weight, pack_2to4(weight, scale=scale)


@implementation
@pytest.mark.parametrize("weight_dtype", WEIGHTS, ids=str)
@pytest.mark.parametrize("tokens", TOKENS)
def test_is_the_product(impl, weight_dtype, tokens):
    weight, packed = packed_weight(37, 192, weight_dtype)
    x, bias = inputs(tokens, 192), inputs(37, seed=2)
    y = linear_2to4(x, packed, bias, impl=impl)
    assert_is_product(y, x, weight, packed.scale, bias)


@native
@pytest.mark.parametrize("weight_dtype", WEIGHTS, ids=str)
@pytest.mark.parametrize("shape", [(1, 64), (3, 64), (4, 128), (33, 1088), (130, 64), (5, 17024)])
def test_shapes_that_break_a_tile(weight_dtype, shape):
    weight, packed = packed_weight(*shape, weight_dtype)
    for tokens in (1, 2, 3, 7, 19):
        x = inputs(tokens, shape[1])
        y = _native.linear_packed(x, packed, None)
        assert_is_product(y, x, weight, packed.scale)


@implementation
@pytest.mark.parametrize("columns", [32, 96, 160])
def test_odd_multiples_of_32(impl, columns):
    weight, packed = packed_weight(9, columns)
    x = inputs(6, columns)
    assert_is_product(linear_2to4(x, packed, impl=impl), x, weight)


@implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_of_x_strides_and_dimensions(impl, dtype):
    weight, packed = packed_weight(21, 64)
    x = inputs(2, 5, 128, dtype=dtype)[..., ::2]
    bias = inputs(21, dtype=torch.bfloat16)
    y = linear_2to4(x, packed, bias, impl=impl)
    assert_is_product(y, x, weight, None, bias)
    one = linear_2to4(x[0, 0], packed, impl=impl)
    assert_is_product(one[None], x[0, :1], weight)


@implementation
def test_empty_batches(impl):
    _, packed = packed_weight(21, 64)
    y = linear_2to4(inputs(0, 3, 64, dtype=torch.bfloat16), packed, impl=impl)
    assert y.shape == (0, 3, 21) and y.dtype == torch.bfloat16


@native
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tokens", [1, 6, 70])
@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, torch.int8], ids=str)
def test_what_is_not_finite_spreads_as_in_a_dense_product(value, tokens, weight_dtype):
    weight, packed = packed_weight(21, 64, weight_dtype)
    x = inputs(tokens, 64)
    x[tokens // 2, 17] = value  # 0 * value is NaN: pruned weights count
    y = _native.linear_packed(x, packed, None)
    expected = x.double() @ weight.double().mT
    assert torch.equal(y.isnan(), expected.isnan()) and y.isnan().any()
    assert torch.equal(y.isinf(), expected.isinf())
    others = torch.arange(tokens) != tokens // 2
    assert_is_product(y[others], x[others], weight, packed.scale)


@native
def test_special_values_of_a_weight():
    for dtype in (torch.float16, torch.float8_e4m3fn, torch.bfloat16):
        weight = torch.zeros(4, 64)
        tiny = torch.finfo(dtype).smallest_normal / 4  # subnormal
        weight[0, 5], weight[1, 9], weight[2, 33] = float("nan"), torch.finfo(dtype).max, tiny
        packed = pack_2to4(weight.to(dtype))
        y = linear_2to4(torch.full((1, 64), 1.0), packed, impl="native")[0]
        truth = weight.to(dtype).double().sum(1)
        assert y[0].isnan() and y[1:].double().tolist() == truth[1:].tolist(), dtype


@native
@every_bf16_set
def test_every_half_is_widened_exactly(instruction_set):
    halves = every_half()
    pairs = halves[halves.isfinite()].reshape(-1, 2)
    weight = torch.stack([pairs, torch.zeros_like(pairs)], -1).reshape(-1, 64)
    y = _native.linear_packed(torch.eye(64), pack_2to4(weight), None)
    assert torch.equal(y, weight.float().T)


@native
@every_bf16_set
def test_what_is_not_finite_in_a_row_of_a_weight_stays_there(instruction_set):
    weight = sparse_weight(8, 96)
    weight[5] = torch.tensor([float("nan"), 0]).repeat(48)  # row 4 ends there: no reading on
    y = _native.linear_packed(inputs(3, 96), pack_2to4(weight), None)
    assert y.isnan().any(0).tolist() == [row == 5 for row in range(8)]


@native
@every_bf16_set
@pytest.mark.parametrize("weight_dtype", WEIGHTS, ids=str)
def test_every_instruction_set(instruction_set, weight_dtype):
    weight, packed = packed_weight(37, 192, weight_dtype)
    for tokens in (1, 2, 3, 8, 20, 70):
        x = inputs(tokens, 192)
        y = _native.linear_packed(x, packed, None)
        assert_is_product(y, x, weight, packed.scale)


@native
@pytest.mark.parametrize("tokens", [1, 4, 70])
def test_threads_change_nothing(tokens):
    _, packed = packed_weight(1001, 576)
    x = inputs(tokens, 576)
    one = _native.linear_packed(x, packed, None)
    torch.set_num_threads(3)
    try:
        three = _native.linear_packed(x, packed, None)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one, three)


@native
def test_codes_are_made_once_and_go_with_their_weight():
    from rac_kernels._native import linear

    weight, packed = packed_weight(70, 128)
    codes = linear.codes_of(packed)
    assert codes is linear.codes_of(packed)
    assert codes.nbytes * 16 == packed.values.shape[0] * 128 * 2
    # By definition: row 33's first two groups, columns 0 to 7, are two nibbles of one byte.
    expected = 0
    for group in range(2):
        kept = unpack_2to4(packed)[33, 4 * group : 4 * group + 4].nonzero().flatten().tolist()
        expected |= (kept[0] | kept[1] << 2) << 4 * group
    assert int(codes[33 // 4, 0, 33 % 4, 0]) == expected
    count = len(linear._prepared)
    del packed
    assert len(linear._prepared) == count - 1


def test_auto_takes_the_reference_where_a_gradient_is_needed():
    weight, packed = packed_weight(8, 64)
    x = inputs(3, 64).requires_grad_()
    linear_2to4(x, packed).sum().backward()
    torch.testing.assert_close(x.grad, weight.float().sum(0).expand(3, -1))
    with pytest.raises(ValueError, match="linear_2to4: impl='native' cannot run: it has no back"):
        linear_2to4(x, packed, impl="native")


def test_refusals():
    _, packed = packed_weight(8, 64)
    x = inputs(3, 64)
    with pytest.raises(ValueError, match=r"linear_2to4: expected x \[..., 64\] for W \[8, 64\]"):
        linear_2to4(inputs(3, 32), packed)
    with pytest.raises(TypeError, match="expected x in bf16, fp16 or fp32, got torch.float64"):
        linear_2to4(x.double(), packed)
    with pytest.raises(TypeError, match="expected a tensor for x, got list"):
        linear_2to4([1.0], packed)
    with pytest.raises(ValueError, match=r"expected bias \[8\] for W \[8, 64\], got \[7\]"):
        linear_2to4(x, packed, torch.zeros(7))
    with pytest.raises(ValueError, match="impl='triton' does not exist for this op"):
        linear_2to4(x, packed, impl="triton")
    with pytest.raises(ValueError, match="expected impl one of auto, reference, native, cusparse"):
        linear_2to4(x, packed, impl="fast")
    for impl in ("cusparselt", "cutlass"):
        with pytest.raises(ValueError, match=f"impl='{impl}' cannot run: it runs on an NVIDIA GPU"):
            linear_2to4(x, packed, impl=impl)


def test_the_table_says_what_an_unmeasured_gpu_gets():
    lines = linear_choice.table()
    assert any(line.startswith("other GPUs, 2:4: cusparselt or reference") for line in lines)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("impl", ["auto", "cusparselt", "cutlass"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("tokens", [1, 8, 13, 512])
@pytest.mark.parametrize("with_bias", [False, True])
def test_on_a_gpu(impl, dtype, tokens, with_bias):
    if impl == "cutlass" and torch.cuda.get_device_capability()[0] != 8:
        pytest.skip("CUTLASS's kernel runs on compute capability 8.x")
    if impl == "cusparselt" and not torch.backends.cusparselt.is_available():
        pytest.skip("this torch has no cuSPARSELt")
    weight = sparse_weight(256, 512, dtype)
    packed = pack_2to4(weight.cuda())
    x = inputs(2, tokens, 512, dtype=dtype).cuda()
    bias = inputs(256, dtype=dtype).cuda() if with_bias else None
    y = linear_2to4(x, packed, bias, impl=impl)
    truth = x.double() @ weight.cuda().double().mT + (0 if bias is None else bias.double())
    size = x.double().abs() @ weight.cuda().double().abs().mT
    # tensor cores truncate sums, and y is rounded twice: before and after the bias
    bound = 514 * 2.0**-22 * size + 2 * torch.finfo(dtype).eps * (truth.abs() + 1)
    assert bool(((y.double() - truth).abs() <= bound).all()) and y.dtype == dtype


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_an_implementation_says_why_it_cannot():
    packed = pack_2to4(sparse_weight(48, 96).cuda())
    x = inputs(3, 96, dtype=torch.bfloat16).cuda()
    with pytest.raises(ValueError, match=r"cannot run: it takes \[R, C\] in multiples of \[32, 64"):
        linear_2to4(x, packed, impl="cutlass")
    with pytest.raises(ValueError, match="cannot run: it takes x and values of one dtype"):
        linear_2to4(x.float(), packed, impl="cusparselt")
