"""RMSNorm that captures: transformers' own values, and the ring holds them."""

import pytest
import torch
from capturing import (
    DTYPES,
    activity,
    buffer_for,
    every_impl,
    random,
    skip_fp16_on_the_cpu,
    staged,
    strided,
)
from instruction_sets import every_instruction_set, using
from numeric import EPS32, native
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from rac_kernels import rmsnorm_capture

EPS = 1e-6
# One column, below and off a vector of 16, off the 32 partial sums, off a power of two.
SHAPES = [(1, 1), (2, 7), (3, 33), (4, 96), (2, 1100)]


def assert_is_rmsnorm(y, x, weight, eps=EPS):
    """Y is ``weight * round(n)`` for an n within the float32 error of the normed row.

    Half the bound of a sum of D squares in any order (Higham, section 3.5), and four roundings:
    of the division, the sum with eps, the root and the product.
    """
    rows = x.double()
    normed = rows / (rows.square().mean(-1, keepdim=True) + eps).sqrt()
    error = ((x.shape[-1] + 2) / 2 + 4) * EPS32
    if x.dtype == torch.float32:
        truth = weight.double() * normed
        assert bool(((y - truth).abs() <= (error + EPS32) * truth.abs()).all())
        return
    low, high = (weight * (normed * (1 + sign * error)).to(x.dtype) for sign in (-1, 1))
    assert bool(((y == low) | (y == high)).all())
    assert (low == high).double().mean() > 0.9  # nearly all are fixed to the bit


@every_impl
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "features"), SHAPES)
def test_value_and_capture(impl, dtype, batch, features):
    skip_fp16_on_the_cpu(impl, dtype)
    x = random(batch, features, dtype=dtype, impl=impl, scale=3)
    weight = random(features, dtype=dtype, impl=impl, seed=1)
    buffer, active = buffer_for(x, 2 * batch), activity(batch, impl, seed=features)
    y = rmsnorm_capture(x, weight, EPS, buffer=buffer, active=active, impl=impl)
    assert y.shape == x.shape and y.dtype == dtype
    assert_is_rmsnorm(y, x, weight)
    again = rmsnorm_capture(strided(x), weight, EPS, buffer=buffer, impl=impl)
    assert torch.equal(again, y)
    assert torch.equal(rmsnorm_capture(x, weight, EPS, impl=impl), y)
    assert torch.equal(staged(buffer), torch.cat([y[active], y]))
    assert buffer.state.tolist() == [int(active.sum()) + batch, 0, 0, 0]


@every_impl
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm])
def test_stands_in_for_transformers_modules(impl, dtype, kind):
    skip_fp16_on_the_cpu(impl, dtype)
    x = random(3, 1, 576, dtype=dtype, impl=impl, scale=3)
    module = kind(576, eps=1e-5).to(x)
    module.weight.data = random(576, dtype=dtype, impl=impl, seed=1)
    with torch.no_grad():
        own = module(x)
        y = rmsnorm_capture(x, module.weight, module.variance_epsilon, impl=impl)
    assert_is_rmsnorm(own, x, module.weight.data, eps=1e-5)
    assert_is_rmsnorm(y, x, module.weight.data, eps=1e-5)
    if dtype == torch.float32:
        torch.testing.assert_close(y, own, rtol=1e-6, atol=0)
    else:  # bit for bit but where the normed value lies between two
        assert (y == own).double().mean() > 0.999
        torch.testing.assert_close(y, own, rtol=2 * torch.finfo(dtype).eps, atol=0)


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_instruction_set
def test_every_instruction_set_gives_the_same_bits(instruction_set, dtype):
    x = random(3, 203, dtype=dtype, impl="native")
    with using("baseline"):
        expected = rmsnorm_capture(x, x[0], EPS, impl="native")
    assert torch.equal(rmsnorm_capture(x, x[0], EPS, impl="native"), expected)


@native
def test_threads_change_nothing():
    x = random(200, 1400, dtype=torch.float32, impl="native")  # more than the parallel threshold
    one = rmsnorm_capture(x, x[0], EPS, impl="native")
    torch.set_num_threads(3)
    try:
        three = rmsnorm_capture(x, x[0], EPS, impl="native")
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one, three)


@every_impl
def test_not_finite_rows_stay_so_and_leave_the_others_alone(impl):
    x = random(3, 20, dtype=torch.float32, impl=impl)
    expected = rmsnorm_capture(x, x[0], EPS, impl=impl)
    x[1, 3] = float("nan")
    y = rmsnorm_capture(x, x[0], EPS, impl=impl)
    assert y[1].isnan().all() and torch.equal(y[::2], expected[::2])


@every_impl
def test_a_row_of_zeros(impl):
    x = torch.zeros(2, 9, device=random(1, dtype=torch.float32, impl=impl).device)
    assert not rmsnorm_capture(x, x[0] + 1, EPS, impl=impl).any()


def test_auto_is_differentiable_where_a_gradient_is_needed():
    x = random(2, 9, dtype=torch.float32, impl="reference").requires_grad_()
    buffer = buffer_for(x, 2)
    rmsnorm_capture(x, torch.ones(9), EPS, buffer=buffer).sum().backward()
    assert x.grad.abs().sum() > 0 and not buffer.rows.requires_grad


@native
def test_native_has_no_backward():
    x = torch.ones(2, 9, requires_grad=True)
    with pytest.raises(ValueError, match="it has no backward"):
        rmsnorm_capture(x, torch.ones(9), EPS, impl="native")


X = torch.ones(3, 4)
BAD = {
    "weight size": (X, X[0, :3], EPS, ValueError, r"weight \[4\] for x \[3, 4\], got \[3\]"),
    "weight dtype": (X, X[0].bfloat16(), EPS, TypeError, "expected weight in torch.float32 as x"),
    "weight": (X, 1.0, EPS, TypeError, "expected a tensor for weight, got float"),
    "double": (X.double(), X[0].double(), EPS, TypeError, "expected x in bf16, fp16 or fp32"),
    "stride": (torch.ones(4, 3).mT, X[0], EPS, ValueError, "unit last stride"),
    "weight stride": (X, X[0].repeat(2)[::2], EPS, ValueError, "weight with a unit last stride"),
    "eps": (X, X[0], -1.0, ValueError, "eps >= 0, got -1.0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    x, weight, eps, kind, message = BAD[name]
    with pytest.raises(kind, match=f"^rmsnorm_capture: .*{message}"):
        rmsnorm_capture(x, weight, eps)


def test_a_buffer_that_does_not_fit_is_refused():
    for buffer in (buffer_for(X[:, :3], 8), buffer_for(X.bfloat16(), 8)):
        with pytest.raises((ValueError, TypeError), match="^rmsnorm_capture: .* buffer, got"):
            rmsnorm_capture(X, X[0], EPS, buffer=buffer)
