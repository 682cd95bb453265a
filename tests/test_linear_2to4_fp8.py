"""x W^T with a 2:4 weight in fp8 and x rounded to fp8: every implementation against float64."""

import pytest
import torch
from fp8_truth import rounded
from instruction_sets import every_bf16_set
from numeric import EPS32, native
from sparse_linear import implementation, inputs, sparse_weight

from rac_kernels import _native, linear_2to4_fp8, linear_choice, pack_2to4, quantize_fp8_rows

TOKENS = [1, 2, 3, 4, 5, 8, 9, 17, 33]


def packed_weight(rows, columns):
    values, scale = quantize_fp8_rows(sparse_weight(rows, columns, torch.float32))
    return values.double() * scale.double()[:, None], pack_2to4(values, scale=scale)


def assert_is_product(y, x, weight, bias=None):
    """`y` is x, rounded, times W^T within a float32 sum's error.

    Products of two values of e4m3 are exact. gamma_{C+4} of them bounds any order of C sums, three
    factors (two scales and a power of two) and a bias; half an ulp of y is for the last rounding.
    """
    x_rounded = rounded(x)
    truth, size = x_rounded @ weight.mT, x_rounded.abs() @ weight.abs().mT
    if bias is not None:
        truth, size = truth + bias.double(), size + bias.double().abs()
    assert y.dtype == x.dtype and y.shape == truth.shape
    bound = (x.shape[-1] + 4) * EPS32 * size
    bound += torch.finfo(y.dtype).eps / 2 * (truth.abs() + bound)
    worst = ((y.double() - truth).abs() - bound).max() if y.numel() else 0
    assert worst <= 1e-30, f"off by {worst} more than float32 sums may be"


@implementation
@pytest.mark.parametrize("tokens", TOKENS)
def test_is_the_product(impl, tokens):
    weight, packed = packed_weight(37, 192)
    x, bias = inputs(tokens, 192), inputs(37, seed=2)
    assert_is_product(linear_2to4_fp8(x, packed, impl=impl), x, weight)
    assert_is_product(linear_2to4_fp8(x, packed, bias, impl=impl), x, weight, bias)


@native
@pytest.mark.parametrize("shape", [(1, 64), (4, 128), (33, 1088), (130, 64), (5, 17024)])
def test_shapes_that_break_a_tile(shape):
    weight, packed = packed_weight(*shape)
    for tokens in (1, 2, 3, 7, 19):
        x = inputs(tokens, shape[1])
        assert_is_product(_native.linear_packed(x, packed, None, rounds_x=True), x, weight)


@native
@every_bf16_set
def test_every_instruction_set(instruction_set):
    weight, packed = packed_weight(37, 192)
    for tokens in (1, 2, 3, 8, 20):
        x = inputs(tokens, 192)
        assert_is_product(linear_2to4_fp8(x, packed, impl="native"), x, weight)


@native
@every_bf16_set
def test_every_byte_of_a_weight_is_decoded_exactly(instruction_set):
    """One at a time: a subnormal may not vanish, nor a sign or a neighbour's bits come along."""
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    for place in range(8):  # in a group, and in either half of a word
        weight = torch.zeros(256, 64)
        weight[:, place] = every.float()
        weight[:, (place + 5) % 8] = every.float().flip(0).nan_to_num(448)
        packed = pack_2to4(weight.to(torch.float8_e4m3fn))
        for tokens in (1, 2, 5):
            x = torch.zeros(tokens, 64)
            x[:, place] = 448
            y = linear_2to4_fp8(x, packed, impl="native")
            expected = 448 * every.float().expand(tokens, -1)
            assert torch.equal(y.isnan(), expected.isnan()), place
            assert torch.equal(y.nan_to_num(), expected.nan_to_num()), place


@implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_of_x_strides_and_dimensions(impl, dtype):
    weight, packed = packed_weight(21, 64)
    x = inputs(2, 5, 128, dtype=dtype)[..., ::2]
    x[1, 1] = 0
    bias = inputs(21, dtype=torch.bfloat16)
    assert_is_product(linear_2to4_fp8(x, packed, bias, impl=impl), x, weight, bias)
    assert_is_product(linear_2to4_fp8(x[0, 0], packed, impl=impl)[None], x[0, :1], weight)
    empty = linear_2to4_fp8(inputs(0, 3, 64, dtype=dtype), packed, impl=impl)
    assert empty.shape == (0, 3, 21) and empty.dtype == dtype


@implementation
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tokens", [1, 6, 19])
def test_a_token_that_is_not_finite_gives_nan_and_no_other_does(impl, value, tokens):
    weight, packed = packed_weight(21, 64)
    x = inputs(tokens, 64)
    x[tokens // 2, 17] = value
    y = linear_2to4_fp8(x, packed, impl=impl)
    bad = torch.arange(tokens) == tokens // 2
    assert bool(y[bad].isnan().all())
    assert_is_product(y[~bad], x[~bad], weight)


@implementation
def test_tokens_of_any_size_and_a_weight_without_scales(impl):
    weight, packed = packed_weight(9, 128)
    x = inputs(5, 128) * torch.tensor([1e-30, 1e-3, 1.0, 1e10, 1e30])[:, None]
    assert_is_product(linear_2to4_fp8(x, packed, impl=impl), x, weight)
    plain = pack_2to4(sparse_weight(9, 128, torch.float8_e4m3fn))
    y = linear_2to4_fp8(x, plain, impl=impl)
    assert_is_product(y, x, sparse_weight(9, 128, torch.float8_e4m3fn).double())


@native
@pytest.mark.parametrize("tokens", [1, 4, 19])
def test_threads_change_nothing(tokens):
    _, packed = packed_weight(1001, 576)
    x = inputs(tokens, 576)
    one = linear_2to4_fp8(x, packed)
    torch.set_num_threads(3)
    try:
        three = linear_2to4_fp8(x, packed)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one, three)


def test_auto_takes_the_reference_where_a_gradient_is_needed():
    _, packed = packed_weight(8, 64)
    x = inputs(3, 64).requires_grad_()
    assert linear_2to4_fp8(x, packed).requires_grad
    with pytest.raises(ValueError, match="linear_2to4_fp8: impl='native' cannot run: it has no ba"):
        linear_2to4_fp8(x, packed, impl="native")


def test_refusals():
    _, packed = packed_weight(8, 64)
    x = inputs(3, 64)
    with pytest.raises(TypeError, match="expected a weight packed in float8_e4m3fn, got torch.bfl"):
        linear_2to4_fp8(x, pack_2to4(sparse_weight(8, 64)))
    with pytest.raises(ValueError, match=r"linear_2to4_fp8: expected x \[..., 64\] for W \[8, 64"):
        linear_2to4_fp8(inputs(3, 32), packed)
    with pytest.raises(ValueError, match="expected impl one of auto, reference, native, cusparsel"):
        linear_2to4_fp8(x, packed, impl="cutlass")
    with pytest.raises(ValueError, match="impl='cusparselt' cannot run: it runs on an NVIDIA GPU"):
        linear_2to4_fp8(x, packed, impl="cusparselt")
    lines = linear_choice.table()
    assert any(line.startswith("other GPUs, 2:4-fp8: cusparselt or reference") for line in lines)
