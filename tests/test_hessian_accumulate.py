import pytest
import torch
from numeric import EPS32, activations, hessian64, implementation, sum_bound

from rac_kernels import hessian_accumulate_, symmetrize_

# One row, one column, on and one off a leaf of 128 columns, one off a chunk of 4096 tokens.
SHAPES = [(1, 1), (1, 5), (3, 1), (100, 256), (100, 127), (64, 257), (300, 513), (4097, 33)]


def assert_lower_within(hessian, truth, bound):
    error = (hessian.double() - truth).abs().tril()
    assert bool((error <= bound).all()), f"worst error/bound {(error / bound).max()}"


@implementation
@pytest.mark.parametrize(("tokens", "features"), SHAPES)
def test_equals_float64(tokens, features, impl):
    x = activations(tokens, features)
    hessian = torch.zeros(features, features)
    assert hessian_accumulate_(hessian, x, impl=impl) is hessian
    assert_lower_within(hessian, hessian64(x), sum_bound(x))


@implementation
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_summed_in_float32(dtype, impl):
    x = activations(200, 300).to(dtype)
    hessian = hessian_accumulate_(torch.zeros(300, 300), x, impl=impl)
    assert_lower_within(hessian, hessian64(x), sum_bound(x))


@implementation
def test_partial_sums_add(impl):
    x = activations(130, 70)
    hessian = torch.zeros(70, 70)
    for part in x.split(50):
        hessian_accumulate_(hessian, part, impl=impl)
    assert_lower_within(hessian, hessian64(x), sum_bound(x))


@implementation
def test_adds_to_what_is_there(impl):
    x = activations(20, 30)
    hessian = torch.full((30, 30), 2.0)
    hessian_accumulate_(hessian, x, impl=impl)
    assert_lower_within(hessian, hessian64(x) + 2, sum_bound(x) + 25 * 2 * EPS32)


@implementation
def test_no_tokens_change_nothing(impl):
    hessian = torch.full((4, 4), 3.0)
    hessian_accumulate_(hessian, torch.empty(0, 4), impl=impl)
    hessian_accumulate_(hessian, torch.empty(2, 0, 4), row_weight=torch.empty(2, 0), impl=impl)
    assert torch.equal(hessian.tril(), torch.full((4, 4), 3.0).tril())


@implementation
def test_any_leading_shape_and_strides(impl):
    wide = activations(60, 40)
    x = wide.view(4, 15, 40)[:, ::2, 5:30]  # rows not adjacent, unit last stride
    assert not x.is_contiguous()
    hessian = hessian_accumulate_(torch.zeros(25, 25), x, impl=impl)
    assert_lower_within(hessian, hessian64(x), sum_bound(x))
    one = hessian_accumulate_(torch.zeros(25, 25), x[0, 0], impl=impl)
    assert_lower_within(one, hessian64(x[0, 0]), sum_bound(x[0, 0]))


@implementation
def test_row_weight(impl):
    x = activations(80, 30).view(8, 10, 30)
    weight = torch.rand(8, 10, generator=torch.Generator().manual_seed(1)) - 0.2
    hessian = hessian_accumulate_(torch.zeros(30, 30), x, row_weight=weight, impl=impl)
    assert_lower_within(hessian, hessian64(x, weight), sum_bound(x, weight))


@implementation
def test_a_row_of_weight_zero_adds_nothing_even_if_not_finite(impl):
    x = activations(6, 10)
    expected = hessian_accumulate_(torch.zeros(10, 10), x[:4], impl=impl)
    x[4:] = float("nan")
    active = torch.tensor([True, True, True, True, False, False])
    hessian = hessian_accumulate_(torch.zeros(10, 10), x, row_weight=active, impl=impl)
    torch.testing.assert_close(hessian, expected, rtol=1e-6, atol=1e-6)


@implementation
def test_x_is_not_changed(impl):
    x = activations(10, 10)
    before = x.clone()
    hessian_accumulate_(torch.zeros(10, 10), x, row_weight=torch.rand(10), impl=impl)
    assert torch.equal(x, before)


@pytest.mark.parametrize("features", [1, 5, 512, 700])
def test_symmetrize_copies_the_lower_triangle(features):
    hessian = activations(features, features)
    expected = hessian.tril() + hessian.tril(-1).mT
    assert symmetrize_(hessian) is hessian
    assert torch.equal(hessian, expected)


BAD = {
    "expected a square hessian, got [3, 4]": (torch.zeros(3, 4), torch.zeros(2, 4)),
    "expected hessian with 2 dimensions, got [4]": (torch.zeros(4), torch.zeros(2, 4)),
    "expected hessian in float32, got torch.float64": (
        torch.zeros(4, 4, dtype=torch.float64),
        torch.zeros(2, 4),
    ),
    "expected x in bf16, fp16 or fp32, got torch.int64": (
        torch.zeros(4, 4),
        torch.zeros(2, 4, dtype=torch.long),
    ),
    "expected x [..., 4] for H [4, 4], got [2, 5]": (torch.zeros(4, 4), torch.zeros(2, 5)),
    "expected x with a unit last stride": (torch.zeros(4, 4), torch.zeros(4, 2).mT),
    "expected all tensors on one device": (torch.zeros(4, 4), torch.zeros(2, 4, device="meta")),
    "expected hessian with data": (torch.zeros(4, 4, device="meta"), torch.zeros(2, 4)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    hessian, x = BAD[message]
    with pytest.raises((ValueError, TypeError)) as caught:
        hessian_accumulate_(hessian, x)
    assert str(caught.value).startswith("hessian_accumulate_: " + message)


def test_bad_row_weight_and_impl():
    hessian, x = torch.zeros(4, 4), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"expected row_weight \[2\], got \[3\]"):
        hessian_accumulate_(hessian, x, row_weight=torch.ones(3))
    with pytest.raises(ValueError, match="expected impl one of auto, reference, triton, native"):
        hessian_accumulate_(hessian, x, impl="fast")
