"""x W^T with an unstructured sparse weight: every implementation against float64."""

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

from rac_kernels import _native, linear_bitmap, pack_bitmap

HALVES = [torch.bfloat16, torch.float16]


def packed_weight(rows, columns, dtype=torch.bfloat16, sparsity="0.5"):
    weight = sparse_weight(rows, columns, dtype, sparsity)
    return weight, pack_bitmap(weight)


@implementation
@pytest.mark.parametrize("weight_dtype", HALVES, ids=str)
@pytest.mark.parametrize("tokens", TOKENS)
def test_is_the_product(impl, weight_dtype, tokens):
    weight, packed = packed_weight(37, 201, weight_dtype)
    x, bias = inputs(tokens, 201), inputs(37, seed=2)
    assert_is_product(linear_bitmap(x, packed, bias, impl=impl), x, weight, None, bias)


@native
@pytest.mark.parametrize("sparsity", ["0", "0.3", "0.9", "1"])
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 7), (4, 8), (5, 9), (33, 1023), (130, 65), (5, 33001)]
)
def test_shapes_that_break_a_tile(sparsity, shape):
    weight, packed = packed_weight(*shape, sparsity=sparsity)
    for tokens in (1, 2, 3, 7, 19):
        x = inputs(tokens, shape[1])
        assert_is_product(_native.linear_packed(x, packed, None), x, weight)


@implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_of_x_strides_and_dimensions(impl, dtype):
    weight, packed = packed_weight(21, 40)
    x = inputs(2, 5, 80, dtype=dtype)[..., ::2]
    bias = inputs(21, dtype=torch.bfloat16)
    assert_is_product(linear_bitmap(x, packed, bias, impl=impl), x, weight, None, bias)


@implementation
def test_empty_batches(impl):
    _, packed = packed_weight(21, 40)
    y = linear_bitmap(inputs(0, 40, dtype=torch.bfloat16), packed, impl=impl)
    assert y.shape == (0, 21) and y.dtype == torch.bfloat16


@native
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tokens", [1, 6, 70])
def test_what_is_not_finite_spreads_as_in_a_dense_product(value, tokens):
    weight, packed = packed_weight(21, 39)
    x = inputs(tokens, 39)
    x[tokens // 2, 37] = value  # 0 * value is NaN: pruned weights count
    y = _native.linear_packed(x, packed, None)
    expected = x.double() @ weight.double().mT
    assert torch.equal(y.isnan(), expected.isnan()) and y.isnan().any()
    others = torch.arange(tokens) != tokens // 2
    assert_is_product(y[others], x[others], weight)


@native
@every_bf16_set
@pytest.mark.parametrize("weight_dtype", HALVES, ids=str)
@pytest.mark.parametrize("columns", [40, 201])  # an odd number of bytes a row
def test_every_instruction_set(instruction_set, weight_dtype, columns):
    weight, packed = packed_weight(37, columns, weight_dtype)
    for tokens in (1, 2, 3, 8, 20, 70):
        x = inputs(tokens, columns)
        assert_is_product(_native.linear_packed(x, packed, None), x, weight)


@native
@every_bf16_set
def test_every_half_is_widened_exactly(instruction_set):
    halves = every_half()
    weight = halves[halves.isfinite()].reshape(-1, 16)
    y = _native.linear_packed(torch.eye(16), pack_bitmap(weight), None)
    assert torch.equal(y, weight.float().T)


@native
@pytest.mark.parametrize("tokens", [1, 4, 70])
def test_threads_change_nothing(tokens):
    _, packed = packed_weight(1001, 571)
    x = inputs(tokens, 571)
    one = _native.linear_packed(x, packed, None)
    torch.set_num_threads(3)
    try:
        three = _native.linear_packed(x, packed, None)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one, three)


def test_auto_takes_the_reference_where_a_gradient_is_needed():
    weight, packed = packed_weight(8, 40)
    x = inputs(3, 40).requires_grad_()
    linear_bitmap(x, packed).sum().backward()
    torch.testing.assert_close(x.grad, weight.float().sum(0).expand(3, -1))
    with pytest.raises(ValueError, match="linear_bitmap: impl='native' cannot run: it has no back"):
        linear_bitmap(x, packed, impl="native")


def test_refusals():
    _, packed = packed_weight(8, 40)
    with pytest.raises(ValueError, match=r"linear_bitmap: expected x \[..., 40\] for W \[8, 40\]"):
        linear_bitmap(inputs(3, 32), packed)
    with pytest.raises(TypeError, match="expected x in bf16, fp16 or fp32, got torch.int64"):
        linear_bitmap(torch.ones(3, 40, dtype=torch.int64), packed)
    with pytest.raises(ValueError, match="impl='triton' does not exist for this op"):
        linear_bitmap(inputs(3, 40), packed, impl="triton")
