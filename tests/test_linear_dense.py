"""x W^T with a dense weight of 16 bits: every implementation against float64."""

from types import SimpleNamespace

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
)

from rac_kernels import _choice, _native, linear_dense
from rac_kernels._choice import auto_dense
from rac_kernels.ops import dense

HALVES = [torch.bfloat16, torch.float16]


@implementation
@pytest.mark.parametrize("weight_dtype", HALVES, ids=str)
@pytest.mark.parametrize("tokens", TOKENS)
def test_is_the_product(impl, weight_dtype, tokens):
    weight, x, bias = inputs(37, 201, dtype=weight_dtype), inputs(tokens, 201), inputs(37, seed=2)
    assert_is_product(linear_dense(x, weight, bias, impl=impl), x, weight, None, bias)


@native
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 7), (4, 8), (5, 31), (6, 33), (33, 1023), (130, 65), (5, 33001)]
)
def test_shapes_that_break_a_tile(shape):
    weight = inputs(*shape, dtype=torch.bfloat16)
    for tokens in (1, 2, 3, 7, 19):
        x = inputs(tokens, shape[1])
        assert_is_product(_native.linear_dense(x, weight, None), x, weight)


@implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_of_x_strides_and_dimensions(impl, dtype):
    weight = inputs(21, 80, dtype=torch.bfloat16)[:, ::2]
    x = inputs(2, 5, 80, dtype=dtype)[..., ::2]
    bias = inputs(21, dtype=torch.bfloat16)
    assert_is_product(linear_dense(x, weight, bias, impl=impl), x, weight, None, bias)


@native
@pytest.mark.parametrize("tokens", [1, 6])
def test_nothing_past_the_end_of_a_row_is_read_into_it(tokens):
    """The next row's NaN must not reach a row whose columns end within a vector."""
    weight = inputs(9, 45, dtype=torch.bfloat16)
    weight[5] = float("nan")
    x = inputs(tokens, 45)
    y = _native.linear_dense(x, weight, None)
    assert y[:, 5].isnan().all()
    rest = torch.arange(9) != 5
    assert_is_product(y[:, rest], x, weight[rest])


@native
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_token(value):
    weight, x = inputs(21, 39, dtype=torch.bfloat16), inputs(6, 39)
    x[3, 37] = value
    y = _native.linear_dense(x, weight, None)
    assert not y[3].isfinite().any() and y[torch.arange(6) != 3].isfinite().all()


@native
@every_bf16_set
@pytest.mark.parametrize("weight_dtype", HALVES, ids=str)
@pytest.mark.parametrize("columns", [40, 201])
def test_every_instruction_set(instruction_set, weight_dtype, columns):
    weight = inputs(37, columns, dtype=weight_dtype)
    for tokens in (1, 2, 3, 8, 20, 70):
        x = inputs(tokens, columns)
        assert_is_product(_native.linear_dense(x, weight, None), x, weight)


@native
@every_bf16_set
@pytest.mark.parametrize("tokens", [1, 8])
def test_every_half_is_widened_exactly(instruction_set, tokens):
    """All 65536 of fp16, subnormals too: whole vectors of a row and its last few columns."""
    halves = every_half()
    finite = halves[halves.isfinite()]
    for columns in (64, 4):
        weight, x = finite.reshape(-1, columns), torch.eye(columns).repeat(tokens, 1)
        y = _native.linear_dense(x, weight, None)
        assert torch.equal(y, weight.float().T.repeat(tokens, 1))
    y = _native.linear_dense(torch.ones(tokens, 1), halves[:, None], None)
    torch.testing.assert_close(y, halves.float().repeat(tokens, 1), equal_nan=True, rtol=0, atol=0)


@native
@pytest.mark.parametrize("tokens", [1, 4, 70])
def test_threads_change_nothing(tokens):
    weight, x = inputs(1001, 571, dtype=torch.bfloat16), inputs(tokens, 571)
    one = _native.linear_dense(x, weight, None)
    torch.set_num_threads(3)
    try:
        three = _native.linear_dense(x, weight, None)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one, three)


@native
def test_auto_is_native_where_it_is_faster(monkeypatch):
    """Few tokens always; more with tiles; many where the CPU multiplies bf16 in software."""
    called = []
    real = _native.linear_dense
    monkeypatch.setattr(
        dense._native, "linear_dense", lambda x, *rest: called.append(len(x)) or real(x, *rest)
    )
    weight = inputs(16, 24, dtype=torch.bfloat16)
    for supported, isa in ((True, "avx512"), (False, "avx2"), (True, "amx")):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda s=supported: s)
        monkeypatch.setattr(_choice._native, "instruction_set", lambda name=isa: name)
        for tokens in (1, 8, 9, 64, 65):
            linear_dense(inputs(tokens, 24, dtype=torch.bfloat16), weight)
    linear_dense(inputs(1, 24), weight.float())  # a float32 weight is torch's
    assert called == [1, 8, *(1, 8, 9, 64, 65), *(1, 8, 9, 64)]


@native
def test_auto_leaves_to_torch_what_torch_does_as_fast(monkeypatch):
    monkeypatch.setattr(_choice._native, "instruction_set", lambda: "avx2")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)
    half, bf16 = inputs(16, 24, dtype=torch.float16), inputs(16, 24, dtype=torch.bfloat16)

    def taken(tokens, weight):
        return auto_dense(inputs(tokens, 24, dtype=weight.dtype), weight)

    assert [taken(tokens, half) for tokens in (1, 40)] == [("native",), ("native",)]
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())  # a torch without oneDNN
    assert taken(8, bf16) == ("native",) and taken(9, bf16) == ()
    monkeypatch.setattr(_choice._native, "instruction_set", lambda: "baseline")
    assert taken(1, bf16) == ()


def test_auto_rounds_as_torch_where_torch_multiplies():
    weight, x = inputs(16, 24), inputs(5, 24)
    assert torch.equal(linear_dense(x, weight), torch.nn.functional.linear(x, weight))


def test_a_gradient_is_torch_s():
    weight = inputs(8, 40, dtype=torch.bfloat16).requires_grad_()
    x = inputs(3, 40, dtype=torch.bfloat16)
    linear_dense(x, weight).sum().backward()
    torch.testing.assert_close(weight.grad, x.float().sum(0).expand(8, -1).bfloat16())
    with pytest.raises(ValueError, match="linear_dense: impl='native' cannot run: it has no back"):
        linear_dense(x, weight, impl="native")


def test_empty_batches():
    y = linear_dense(inputs(0, 40, dtype=torch.bfloat16), inputs(21, 40, dtype=torch.bfloat16))
    assert y.shape == (0, 21) and y.dtype == torch.bfloat16


def test_refusals():
    weight = inputs(8, 40, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"linear_dense: expected x \[..., 40\] for W \[8, 40\]"):
        linear_dense(inputs(3, 32), weight)
    with pytest.raises(ValueError, match=r"expected weight \[R, C\], got \[40\]"):
        linear_dense(inputs(3, 40), weight[0])
    with pytest.raises(ValueError, match=r"expected bias \[8\] for W \[8, 40\], got \[40\]"):
        linear_dense(inputs(3, 40), weight, inputs(40))
    with pytest.raises(TypeError, match="expected weight in bf16, fp16 or fp32, got torch.int8"):
        linear_dense(inputs(3, 40), weight.to(torch.int8))
    with pytest.raises(ValueError, match="it takes a weight in bf16 or fp16, not torch.float32"):
        linear_dense(inputs(3, 40), weight.float(), impl="native")
