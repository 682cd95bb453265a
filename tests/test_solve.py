"""One group's solve: errors as float64 computes them from X, masks, dtypes."""

import pytest
import torch

import rac_kernels
from rac.pruning import solve_group
from rac.pruning.solve import reconstruction_error
from rac_kernels import Pattern


@pytest.fixture
def case():
    """Two weights that share an input of 64 features, 500 tokens, most of it in 16 directions."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 16, generator=generator) @ torch.randn(16, 64, generator=generator)
    x += 0.1 * torch.randn(500, 64, generator=generator)
    weights = [torch.randn(r, 64, generator=generator) for r in (48, 16)]
    hessian = torch.zeros(64, 64)
    rac_kernels.hessian_accumulate_(hessian, x)
    return x, weights, hessian


def true_error(x, weight, pruned):
    x, weight, pruned = x.double(), weight.double(), pruned.double()
    return float((x @ (weight - pruned).T).norm() / (x @ weight.T).norm())


@pytest.mark.parametrize("solver", ["sparsegpt", "wanda", "magnitude"])
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "0.0", "1.0"])
def test_results_say_what_was_done(case, solver, pattern):
    x, weights, hessian = case
    parsed = Pattern.parse(pattern)
    pruned, results = solve_group(("a", "b"), 3, weights, hessian, parsed, solver=solver)
    for name, weight, sparse, result in zip("ab", weights, pruned, results, strict=True):
        assert (result.name, result.layer, result.shape) == (name, 3, tuple(weight.shape))
        assert result.sparsity == float((sparse == 0).double().mean()) == parsed.sparsity
        assert result.error == pytest.approx(true_error(x, weight, sparse), rel=1e-3, abs=1e-6)
        assert result.row()["shape"] == list(weight.shape)
        assert result.damping == (0.01 if solver == "sparsegpt" else 0.0)
        if parsed.structured:
            assert ((sparse.view(-1, 4) == 0).sum(1) == 2).all()


def test_updates_leave_less_error_than_masks_alone(case):
    x, weights, hessian = case
    errors = {}
    for solver in ("sparsegpt", "wanda", "magnitude"):
        rows = solve_group(("a", "b"), 0, weights, hessian.clone(), Pattern(0.6), solver=solver)[1]
        errors[solver] = [row.error for row in rows]
    for best, *others in zip(*errors.values(), strict=True):
        assert best < 0.7 * min(others)


def test_error_is_that_of_the_stored_dtype(case):
    x, weights, hessian = case
    pruned, results = solve_group(
        ("a", "b"), 0, weights, hessian, Pattern(0.0), dtype=torch.bfloat16
    )
    assert all(p.dtype == torch.bfloat16 for p in pruned)
    for weight, sparse, result in zip(weights, pruned, results, strict=True):
        assert torch.equal(sparse, weight.bfloat16())  # nothing to prune: rounding alone
        assert result.error == pytest.approx(true_error(x, weight, sparse), rel=0.02)
        assert result.error > 1e-4


def test_error_of_a_hand_made_case():
    """W = [3, 4], Q = [3, 0], X = I: ||(W - Q) X|| / ||W X|| = 4 / 5; and 0 / 0 is 0."""
    error = reconstruction_error(torch.tensor([[3.0, 4]]), torch.tensor([[3.0, 0]]), torch.eye(2))
    assert error == pytest.approx(0.8)
    assert reconstruction_error(torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(2, 2)) == 0.0


def test_damping_that_was_needed_is_reported():
    """Rank one and no damping asked: the first factorisation fails, 0.01 is enough."""
    x = torch.ones(5, 8)
    weights = [torch.randn(4, 8, generator=torch.Generator().manual_seed(0))]
    results = solve_group(("a",), 0, weights, x.T @ x, Pattern(0.5), damping=0.0)[1]
    assert results[0].damping > 0 and results[0].attempts > 1
