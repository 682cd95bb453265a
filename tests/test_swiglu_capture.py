"""silu(gate) * up that captures: torch's own values, and the ring holds them."""

import pytest
import torch
from capturing import (
    DTYPES,
    activity,
    buffer_for,
    device_of,
    every_impl,
    random,
    skip_fp16_on_the_cpu,
    staged,
    strided,
)
from instruction_sets import every_instruction_set, using
from numeric import EPS32, native

from rac_kernels import swiglu_capture

# One column, below and off a vector of 16, off a block of 1024.
SHAPES = [(1, 1), (2, 7), (3, 33), (4, 96), (2, 1100)]
# exp within 2 ulp (4 roundings), and the roundings of the sum and of the quotient.
SILU_ERROR = 6 * EPS32


def assert_is_swiglu(y, gate, up):
    """Y is ``round(s) * up`` for an s within the float32 error of silu(gate)."""
    silu = gate.double() * gate.double().sigmoid()
    if gate.dtype == torch.float32:
        truth = silu * up.double()
        assert bool(((y - truth).abs() <= (SILU_ERROR + EPS32) * truth.abs()).all())
        return
    low, high = ((silu * (1 + sign * SILU_ERROR)).to(gate.dtype) * up for sign in (-1, 1))
    assert bool(((y == low) | (y == high)).all())
    assert (low == high).double().mean() > 0.9  # nearly all are fixed to the bit


@every_impl
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "features"), SHAPES)
def test_value_and_capture(impl, dtype, batch, features):
    skip_fp16_on_the_cpu(impl, dtype)
    gate = random(batch, features, dtype=dtype, impl=impl, scale=5)
    up = random(batch, features, dtype=dtype, impl=impl, seed=1)
    buffer, active = buffer_for(gate, 2 * batch), activity(batch, impl, seed=features)
    y = swiglu_capture(gate, up, buffer=buffer, active=active, impl=impl)
    assert y.shape == gate.shape and y.dtype == dtype
    assert_is_swiglu(y, gate, up)
    again = swiglu_capture(strided(gate), strided(up), buffer=buffer, impl=impl)
    assert_is_swiglu(again, gate, up)  # torch's own bits depend on strides
    assert torch.equal(swiglu_capture(gate, up, impl=impl), y)
    assert torch.equal(staged(buffer), torch.cat([y[active], again]))
    assert buffer.state.tolist() == [int(active.sum()) + batch, 0, 0, 0]


@every_impl
@pytest.mark.parametrize("dtype", DTYPES)
def test_stands_in_for_torchs_functions(impl, dtype):
    skip_fp16_on_the_cpu(impl, dtype)
    gate = random(3, 1, 700, dtype=dtype, impl=impl, scale=5)
    up = random(3, 1, 700, dtype=dtype, impl=impl, seed=1)
    own = torch.nn.functional.silu(gate) * up
    y = swiglu_capture(gate, up, impl=impl)
    if dtype == torch.float32:
        torch.testing.assert_close(y, own, rtol=1e-6, atol=0)
    else:  # bit for bit but where silu lies between two
        assert (y == own).double().mean() > 0.999
        torch.testing.assert_close(y, own, rtol=2 * torch.finfo(dtype).eps, atol=0)


@every_impl
def test_both_halves_of_one_projection(impl):
    both = random(3, 80, dtype=torch.float32, impl=impl)
    gate, up = both.chunk(2, dim=1)
    y = swiglu_capture(gate, up, impl=impl)
    assert_is_swiglu(y, gate, up)


@every_impl
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the interpreter's numpy
def test_large_and_not_finite_values(impl):
    gate = [-200.0, -89.0, -87.0, -0.0, 0.0, 1e-30, 87.0, 89.0, 200.0, 3e38, float("inf")]
    gate = torch.tensor([[*gate, float("nan")]], device=device_of(impl))
    y = swiglu_capture(gate, torch.ones_like(gate), impl=impl)
    own = torch.nn.functional.silu(gate)
    torch.testing.assert_close(y, own, rtol=1e-6, atol=1e-35, equal_nan=True)
    minus_infinity = torch.full_like(gate, -float("inf"))
    assert not swiglu_capture(minus_infinity, gate, impl=impl).isfinite().any()


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_instruction_set
def test_every_instruction_set_gives_the_same_bits(instruction_set, dtype):
    gate = random(3, 203, dtype=dtype, impl="native", scale=20)
    with using("baseline"):
        expected = swiglu_capture(gate, gate, impl="native")
    assert torch.equal(swiglu_capture(gate, gate, impl="native"), expected)


@native
def test_bf16_rounding_is_torchs():
    """Every bf16 value: silu(v) * 1 is torch's to the bit but where the next lies as near."""
    gate = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    gate = gate[gate.float().abs() < 80].view(1, -1)
    y = swiglu_capture(gate, torch.ones_like(gate), impl="native")
    assert_is_swiglu(y, gate, torch.ones_like(gate))


X = torch.ones(3, 4)
BAD = {
    "shape": (X, X[:2], ValueError, r"up \[3, 4\] for gate \[3, 4\], got \[2, 4\]"),
    "dtype": (X, X.bfloat16(), TypeError, "expected up in torch.float32 as gate"),
    "device": (X, X.to("meta"), ValueError, "all tensors on one device"),
    "no tensor": (1.0, X, TypeError, "expected a tensor for gate, got float"),
    "stride": (torch.ones(4, 3).mT, X, ValueError, "expected gate with a unit last stride"),
    "meta": (X.to("meta"), X.to("meta"), ValueError, "expected gate with data"),
    "stride of up": (X, torch.ones(4, 3).mT, ValueError, "expected up with a unit last stride"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    gate, up, kind, message = BAD[name]
    with pytest.raises(kind, match=f"^swiglu_capture: .*{message}"):
        swiglu_capture(gate, up)
