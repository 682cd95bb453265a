import pytest
import torch
from instruction_sets import every_instruction_set
from numeric import EPS32, activations, damped, implementation, native

from rac_kernels import HessianFactor, factor_hessian, hessian_accumulate_


def hessian_of(x):
    hessian = hessian_accumulate_(torch.zeros(x.shape[-1], x.shape[-1]), x)
    return hessian.tril() + torch.full_like(hessian, float("nan")).triu(1)  # upper is never read


def symmetric(hessian):
    return hessian.tril() + hessian.tril(-1).mT


def assert_factors(factor, target):
    """|H - U U^T| <= gamma_{C+1} |U| |U|^T (Higham, theorem 10.3), twice for the blocked solves."""
    upper = factor.upper.double()
    assert factor.upper.dtype == torch.float32
    assert torch.equal(upper, upper.triu()), "U is not upper triangular"
    assert bool((upper.diagonal() > 0).all())
    bound = 2 * (upper.shape[0] + 1) * EPS32 * (upper.abs() @ upper.abs().mT)
    error = (upper @ upper.mT - target).abs()
    assert bool((error <= bound).all()), f"worst error/bound {(error / bound).max()}"


@implementation
@pytest.mark.parametrize("features", [1, 2, 100, 128, 129, 256, 257, 385, 600])
@pytest.mark.parametrize("overwrite", [False, True])
def test_factors_the_damped_hessian(impl, features, overwrite):
    hessian = hessian_of(activations(features + 50, features))
    before = hessian.clone()
    target = damped(symmetric(hessian), 0.01)
    factor = factor_hessian(hessian, overwrite=overwrite, impl=impl)
    assert (factor.damping, factor.attempts, factor.floor) == (0.01, 1, 0.0)
    assert not bool(factor.dead.any())
    assert_factors(factor, target)
    if overwrite:
        assert factor.upper.data_ptr() == hessian.data_ptr(), "the factor took new memory"
    else:
        assert torch.equal(hessian.tril(), before.tril()), "H was changed"


@native
@every_instruction_set
@pytest.mark.parametrize("features", [1, 129, 385])
def test_every_instruction_set_factors_it(instruction_set, features):
    hessian = hessian_of(activations(features + 50, features))
    factor = factor_hessian(hessian, impl="native")
    assert_factors(factor, damped(symmetric(hessian), 0.01))


@implementation
def test_hand_computed(impl):
    # U = [[2, 1], [0, 3]]  ->  H = U U^T = [[5, 3], [3, 9]]
    factor = factor_hessian(torch.tensor([[5.0, -77.0], [3.0, 9.0]]), damping=0.0, impl=impl)
    torch.testing.assert_close(factor.upper, torch.tensor([[2.0, 1.0], [0.0, 3.0]]))


@implementation
def test_its_inverse_is_sparsegpts_r(impl):
    hessian = hessian_of(activations(300, 60))
    full = damped(symmetric(hessian), 0.01)
    root = torch.linalg.cholesky(torch.linalg.inv(full), upper=True)  # H^-1 = R^T R
    inverse = torch.linalg.inv(factor_hessian(hessian, impl=impl).upper.double())
    torch.testing.assert_close(inverse, root, rtol=1e-4, atol=1e-5 * float(root.abs().max()))


@implementation
def test_scale_free(impl):
    hessian = hessian_of(activations(100, 40))
    small, large = factor_hessian(hessian, impl=impl), factor_hessian(hessian * 2.0**40, impl=impl)
    assert torch.equal(small.upper * 2.0**20, large.upper)


@implementation
def test_sums_whose_total_leaves_float32(impl):
    """The diagonal's mean is finite, its sum is not; powers of two change no digit."""
    hessian = hessian_of(activations(600, 300))
    power = 126 - int(hessian.diagonal().max().log2())
    power -= power % 2
    large = hessian * 2.0**power
    assert large.diagonal().isfinite().all() and large.diagonal().sum().isinf()
    upper = factor_hessian(large, impl=impl).upper
    assert torch.equal(upper, factor_hessian(hessian, impl=impl).upper * 2.0 ** (power // 2))


@implementation
def test_dead_columns_are_found_and_decoupled(impl):
    x = activations(200, 50)
    x[:, [0, 7, 49]] = 0
    hessian = hessian_of(x)
    factor = factor_hessian(hessian, impl=impl)
    assert factor.dead.nonzero().flatten().tolist() == [0, 7, 49]
    assert_factors(factor, damped(symmetric(hessian), 0.01))
    live = ~factor.dead
    off_diagonal = factor.upper - factor.upper.diagonal().diag()
    assert bool((off_diagonal[~live] == 0).all())
    assert bool((off_diagonal[:, ~live] == 0).all())
    # the live part is what it would be without them
    alone = factor_hessian(hessian_of(x[:, live]), impl=impl)
    torch.testing.assert_close(factor.upper[live][:, live], alone.upper, rtol=1e-4, atol=1e-3)


@implementation
def test_all_columns_dead(impl):
    factor = factor_hessian(torch.zeros(3, 3), impl=impl)
    assert bool(factor.dead.all())
    assert torch.equal(factor.upper, torch.eye(3))


@implementation
def test_rank_deficient(impl):
    x = activations(10, 300)  # rank 10 of 300
    hessian = hessian_of(x)
    factor = factor_hessian(hessian, impl=impl)
    assert factor.attempts == 1
    assert_factors(factor, damped(symmetric(hessian), 0.01))


@implementation
def test_ill_conditioned(impl):
    x = activations(400, 100, spread=6)  # column scales over six decades
    hessian = hessian_of(x)
    factor = factor_hessian(hessian, damping=1e-6, impl=impl)
    assert factor.attempts == 1
    assert_factors(factor, damped(symmetric(hessian), 1e-6))


def indefinite(features, negative):
    """H with one eigenvalue of -negative * mean(diag H)."""
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(features, features, generator=generator).double()).Q
    values = torch.ones(features, dtype=torch.float64)
    values[0] = -negative
    return ((basis * values) @ basis.mT * 100).float()


@implementation
@pytest.mark.parametrize("overwrite", [False, True])
def test_damping_doubles_until_it_suffices_and_says_so(impl, overwrite):
    hessian = indefinite(300, 0.1)  # mean of the diagonal: 0.9963 of 100; needs > 0.1004
    expected = damped(hessian, 0.16)
    factor = factor_hessian(hessian, overwrite=overwrite, impl=impl)
    assert (factor.damping, factor.attempts, factor.floor) == (0.16, 5, 0.0)  # .01 .02 .04 .08 .16
    assert_factors(factor, expected)


@implementation
def test_no_damping_goes_on_with_one_percent(impl):
    factor = factor_hessian(indefinite(40, 0.011), damping=0.0, impl=impl)
    assert (factor.damping, factor.attempts) == (0.02, 3)


@implementation
def test_last_resort_is_a_raised_diagonal(impl):
    # Columns 1 and 2 are worse than perfectly correlated; an outlier makes the mean 100.9.
    hessian = torch.eye(10)
    hessian[0, 0], hessian[2, 1] = 1000, 1.5
    factor = factor_hessian(hessian, damping=0.001, max_damping=0.002, impl=impl)
    assert (factor.damping, factor.attempts) == (0.002, 3)
    assert factor.floor == pytest.approx(0.002 * 1000)
    raised = torch.full((10,), 2.0).double()
    raised[0] = 1000 + 0.002 * 100.9
    assert_factors(factor, symmetric(hessian).double().fill_diagonal_(0) + raised.diag())


@implementation
@pytest.mark.parametrize("overwrite", [False, True])
def test_never_the_identity(impl, overwrite):
    hessian = torch.tensor([[1.0, 100.0], [100.0, 1.0]])
    with pytest.raises(ValueError, match="not positive definite, not even at damping 0.5") as error:
        factor_hessian(hessian, overwrite=overwrite, impl=impl)
    assert "factor_hessian: H [2, 2]" in str(error.value)
    # doubling ends at .5; then the diagonal is raised to .5 + .5 of its mean: U_11^2 = 1.5
    assert "the pivot of column 0 is -6665.17" in str(error.value)  # 1.5 - 100^2 / 1.5
    assert torch.equal(hessian.tril(), torch.tensor([[1.0, 0.0], [100.0, 1.0]]))


@implementation
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [(5, 5), (9, 4), (299, 0)])
def test_not_finite_is_named(impl, bad, place):
    hessian = hessian_of(activations(400, 300))
    hessian[place] = bad
    with pytest.raises(ValueError, match="factor_hessian: .*NaN or Inf"):
        factor_hessian(hessian, impl=impl)


def test_bad_input_is_named(monkeypatch):
    with pytest.raises(ValueError, match=r"expected a square hessian, got \[2, 3\]"):
        factor_hessian(torch.zeros(2, 3))
    with pytest.raises(TypeError, match="expected hessian in float32, got torch.float64"):
        factor_hessian(torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least one column"):
        factor_hessian(torch.zeros(0, 0))
    for damping in (-0.1, 0.6, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected 0 <= damping <= max_damping"):
            factor_hessian(torch.eye(2), damping)
    with pytest.raises(ValueError, match="sums of squares on H's diagonal, got -1.0 at 1"):
        factor_hessian(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    with pytest.raises(ValueError, match="'native' cannot run: it needs a hessian with a unit"):
        factor_hessian(torch.ones(4, 4)[::2, ::2], impl="native")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="impl='triton' cannot run: it runs on a GPU"):
        factor_hessian(torch.eye(2), impl="triton")


def test_result_is_frozen():
    with pytest.raises(AttributeError):
        factor_hessian(torch.eye(2)).damping = 0.0
    assert HessianFactor.__dataclass_params__.frozen
