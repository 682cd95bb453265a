"""The Triton factor: its blocks, its pivots, and the retries that it shares with the reference."""

import dataclasses

import pytest
import torch
from numeric import EPS32, activations, damped, hessian64
from triton_interpreter import DEVICE, needs_triton

from rac_kernels import factor_hessian

pytestmark = [
    needs_triton,
    *([pytest.mark.gpu] if DEVICE == "cuda" else []),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, of the interpreter
]
pytest.importorskip("triton", reason="triton is not installed")

from rac_kernels._triton import tuning  # noqa: E402
from rac_kernels._triton.factor_hessian import reversed_cholesky_  # noqa: E402

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


@pytest.fixture
def narrow(monkeypatch):
    """Two blocks a panel, two strips a block: few columns have several, and tiles of two widths."""
    for capability, configs in tuning.FACTOR.items():
        small = dataclasses.replace(configs[0], block=32, panel=128, block_i=64, block_j=16)
        monkeypatch.setitem(tuning.FACTOR, capability, (small,))


def lower_hessian(features, tokens=None, spread=1.0):
    """A Hessian whose upper triangle is NaN: it must not be read."""
    x = activations(tokens or features + 50, features, spread=spread)
    hessian = hessian64(x).float()
    return (hessian + torch.full_like(hessian, float("nan")).triu(1)).to(DEVICE)


def assert_factors(upper, target, slack=2.0):
    """|H - U U^T| <= slack * gamma_{C+1} |U| |U|^T (Higham, theorem 10.3)."""
    upper = upper.double()
    assert torch.equal(upper, upper.triu())
    assert bool((upper.diagonal() > 0).all())
    bound = slack * (upper.shape[0] + 1) * EPS32 * (upper.abs() @ upper.abs().mT)
    error = (upper @ upper.mT - target.to(upper.device)).abs()
    assert bool((error <= bound).all()), f"worst error/bound {(error / bound).max()}"


def symmetric(hessian):
    return hessian.tril() + hessian.tril(-1).mT


# One column, one off a block of 32, one off a panel of 64, two panels and a part of a block.
@pytest.mark.parametrize(
    ("features", "overwrite"), [(1, False), (31, True), (32, False), (65, True), (132, False)]
)
def test_factors_the_damped_hessian(narrow, features, overwrite):
    hessian = lower_hessian(features)
    before = hessian.clone()
    target = damped(symmetric(hessian.cpu()), 0.01)
    factor = factor_hessian(hessian, overwrite=overwrite, impl="triton")
    assert (factor.damping, factor.attempts, factor.floor) == (0.01, 1, 0.0)
    assert_factors(factor.upper, target)
    if overwrite:
        assert factor.upper.data_ptr() == hessian.data_ptr()
    else:
        assert torch.equal(hessian.tril(), before.tril())


def test_default_panels():
    hessian = lower_hessian(200)
    factor = factor_hessian(hessian, impl="triton")
    assert_factors(factor.upper, damped(symmetric(hessian.cpu()), 0.01))


def test_only_the_lower_triangle_is_touched(narrow):
    """A next attempt with more damping starts from what the upper triangle keeps."""
    hessian = symmetric(lower_hessian(100)) + 1e3 * torch.eye(100, device=DEVICE)
    hessian += torch.arange(10000.0, device=DEVICE).view(100, 100).triu(1)
    before = hessian.clone()
    assert reversed_cholesky_(hessian) is None
    assert torch.equal(hessian.triu(1), before.triu(1))


def test_dead_columns_and_low_rank(narrow):
    x = activations(20, 80)  # rank 20 of 80
    x[:, [0, 31, 32, 79]] = 0
    hessian = hessian64(x).float().to(DEVICE)
    factor = factor_hessian(hessian, impl="triton")
    assert factor.dead.nonzero().flatten().tolist() == [0, 31, 32, 79]
    assert_factors(factor.upper, damped(hessian.cpu(), 0.01))


def test_ill_conditioned(narrow):
    hessian = lower_hessian(80, tokens=400, spread=6.0)  # column scales over six decades
    factor = factor_hessian(hessian, damping=1e-6, impl="triton")
    assert factor.attempts == 1
    assert_factors(factor.upper, damped(symmetric(hessian.cpu()), 1e-6))


@pytest.mark.parametrize("column", [0, 31, 79])
def test_the_first_pivot_that_is_not_positive_is_named(narrow, column):
    hessian = torch.eye(80, device=DEVICE)
    hessian[column, column] = -1.0
    hessian[max(column - 70, 0), max(column - 70, 0)] = -1.0  # comes later: columns count down
    assert reversed_cholesky_(hessian) == (column, -1.0)


@pytest.mark.parametrize("overwrite", [False, True])
def test_damping_doubles_until_it_suffices(narrow, overwrite):
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(40, 40, generator=generator).double()).Q
    values = torch.ones(40, dtype=torch.float64)
    values[0] = -0.1
    hessian = ((basis * values) @ basis.mT * 100).float()
    expected = damped(hessian, 0.16)
    factor = factor_hessian(hessian.to(DEVICE), 0.08, overwrite=overwrite, impl="triton")
    assert (factor.damping, factor.attempts) == (0.16, 2)
    assert_factors(factor.upper, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_is_named(narrow, bad):
    hessian = lower_hessian(40)
    hessian[36, 20] = bad
    with pytest.raises(ValueError, match="factor_hessian: .*NaN or Inf"):
        factor_hessian(hessian, 0.5, impl="triton")


def test_strides_are_refused():
    with pytest.raises(ValueError, match="a hessian with a unit last stride"):
        factor_hessian(torch.eye(4, device=DEVICE).mT.contiguous().mT, impl="triton")


def test_auto_takes_it_only_where_it_was_measured(monkeypatch):
    from rac_kernels._choice import auto_factor

    hessian = torch.eye(4)
    assert "triton" not in auto_factor(hessian)  # a CPU
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    assert auto_factor(hessian) == ()  # not measured
    monkeypatch.setattr(tuning, "factor_from", lambda device: 4)
    assert auto_factor(hessian) == ("triton",)
    monkeypatch.setattr(tuning, "factor_from", lambda device: 5)
    assert auto_factor(hessian) == ()


@pytest.mark.parametrize(
    "features", [pytest.param(n, marks=gpu) for n in (1000, 1536, 5120, 5133, 8960)]
)
def test_real_sizes(features):
    hessian = torch.zeros(features, features, device="cuda")
    for seed in range(2):
        x = activations(features, features, seed).cuda()
        hessian += x.mT @ x
    for impl in ("triton", "reference"):
        factor = factor_hessian(hessian, impl=impl)
        assert factor.attempts == 1
        # Three TF32 products and six bf16 ones keep 22 to 24 bits: twice the bound of float32.
        assert_factors(factor.upper, damped(hessian, 0.01), slack=4.0)
