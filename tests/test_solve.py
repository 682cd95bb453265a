"""One group's solve: errors as float64 computes them from X, masks, dtypes."""

import json

import pytest
import torch
from conftest import arguments, read_tensors
from numeric import activations

import rac_kernels
from rac.pruning import solve_group
from rac.pruning.solve import output_energy, reconstruction_error
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


@pytest.mark.parametrize("solver", ["sparsegpt", "alps", "wanda", "magnitude"])
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "0.0", "1.0"])
def test_results_say_what_was_done(case, solver, pattern):
    x, weights, hessian = case
    parsed, before = Pattern.parse(pattern), hessian.clone()
    pruned, results = solve_group(("a", "b"), 3, weights, hessian, parsed, solver=solver)
    assert torch.equal(hessian, before)
    for name, weight, sparse, result in zip("ab", weights, pruned, results, strict=True):
        assert (result.name, result.layer, result.shape) == (name, 3, tuple(weight.shape))
        assert result.sparsity == float((sparse == 0).double().mean()) == parsed.sparsity
        assert result.error == pytest.approx(true_error(x, weight, sparse), rel=1e-3, abs=1e-6)
        assert result.row()["shape"] == list(weight.shape)
        assert result.damping == (0.01 if solver in ("sparsegpt", "alps") else 0.0)
        if parsed.structured:
            assert ((sparse.view(-1, 4) == 0).sum(1) == 2).all()


def test_updates_leave_less_error_than_masks_alone(case):
    """And ALPS, which may change every kept weight at every step, less than SparseGPT."""
    x, weights, hessian = case
    errors = {}
    for solver in ("alps", "sparsegpt", "wanda", "magnitude"):
        rows = solve_group(("a", "b"), 0, weights, hessian, Pattern(0.6), solver=solver)[1]
        errors[solver] = [row.error for row in rows]
    for best, second, *others in zip(*errors.values(), strict=True):
        assert best < 0.8 * second
        assert second < 0.7 * min(others)


def test_damping_and_block_size_reach_their_solvers(case):
    x, weights, hessian = case
    for solver in ("alps", "sparsegpt"):
        default = solve_group(("a", "b"), 0, weights, hessian, Pattern(0.5), solver=solver)[0]
        pruned, results = solve_group(
            ("a", "b"), 0, weights, hessian, Pattern(0.5), solver=solver, damping=0.3
        )
        assert results[0].damping == 0.3 and not torch.equal(pruned[0], default[0])
    blocks = solve_group(("a", "b"), 0, weights, hessian, Pattern(0.5), block_size=16)[0]
    for block in blocks[0].split(16, dim=1):
        assert int((block == 0).sum()) == block.numel() // 2


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


@pytest.mark.parametrize("features", [1, 127, 128, 129, 300])
def test_energy_reads_the_lower_triangle_alone(features):
    x = activations(2 * features, features)
    weight = torch.randn(7, features, generator=torch.Generator().manual_seed(0))
    unspecified = torch.full((features, features), float("nan")).triu(1)
    hessian = rac_kernels.hessian_accumulate_(torch.zeros(features, features), x).tril()
    expected = float((x.double() @ weight.double().T).square().sum())
    assert output_energy(weight, hessian + unspecified) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
def test_error_of_an_ill_conditioned_layer(dtype, transposed):
    """Scales over four decades, an error that is a small part of what cancels in its sum."""
    x = activations(600, 200, spread=4.0) + 5.0
    hessian = rac_kernels.hessian_accumulate_(torch.zeros(200, 200), x)
    weight = torch.randn(48, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    if transposed:  # as Conv1D stores it
        weight = weight.T.contiguous().T
    (pruned,), (result,) = solve_group(("a",), 0, [weight], hessian, Pattern(0.5), dtype=dtype)
    assert pruned.dtype == dtype
    assert result.error == pytest.approx(true_error(x, weight, pruned), rel=1e-3)
    assert reconstruction_error(weight, weight, hessian) == 0


def test_damping_that_was_needed_is_reported():
    """Rank one and no damping asked: the first factorisation fails, 0.01 is enough."""
    x = torch.ones(5, 8)
    weights = [torch.randn(4, 8, generator=torch.Generator().manual_seed(0))]
    results = solve_group(("a",), 0, weights, x.T @ x, Pattern(0.5), damping=0.0)[1]
    assert results[0].damping > 0 and results[0].attempts > 1


@pytest.mark.parametrize("pattern", ["0.6", "2:4"])
def test_a_run_with_alps(pattern, rac, base, tmp_path):
    """The same run as SparseGPT's, with less error in the sum over layers."""
    records = {}
    for solver in ("alps", "sparsegpt"):
        out = tmp_path / solver
        flags = base | {"pattern": pattern, "solver": solver, "out": out}
        assert rac(*arguments(flags))[0] == 0
        records[solver] = json.loads((out / "model" / "rac.json").read_text())
        assert records[solver]["solver"] == solver
        assert records[solver]["sparsity"] == pytest.approx(Pattern.parse(pattern).sparsity, 1e-3)
    assert records["alps"]["error"] < 0.9 * records["sparsegpt"]["error"]
    stored = read_tensors(tmp_path / "alps" / "model")
    for row in records["alps"]["layers"]:
        weight = stored[f"{row['name']}.weight"]
        if pattern == "2:4":
            assert bool(((weight.view(-1, 4) == 0).sum(1) >= 2).all())
        assert row["sparsity"] == pytest.approx(float((weight == 0).float().mean()))
        assert row["damping"] == 0.01 and 0 < row["error"] < 1
