"""Batches: each layer as if it were alone."""

import pytest
import torch
from numeric import layer, native

from rac_kernels import (
    Pattern,
    _native,
    factor_hessian,
    factor_hessians,
    sparsegpt,
    sparsegpt_batch,
)

implementation = pytest.mark.parametrize(
    "impl", ["auto", "reference", pytest.param("native", marks=native)]
)


@pytest.fixture
def three_threads():
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@implementation
@pytest.mark.parametrize("rule", ["0.5", "2:4", "0.5 compat"])
def test_each_is_as_if_alone(impl, rule, three_threads):
    layers = [layer(rows, columns, seed=rows) for rows, columns in [(9, 72), (40, 200)] * 4]
    factors = factor_hessians([hessian for _, hessian in layers], impl=impl)
    text, *compat = rule.split()
    options = {"compat": bool(compat), "impl": impl}
    weights = [weight for weight, _ in layers]
    weights[0] = [weights[0], weights[0][:4]]  # two that share inputs
    results = sparsegpt_batch(weights, factors, Pattern.parse(text), **options)
    for (_, hessian), factor in zip(layers, factors, strict=True):
        assert torch.equal(factor.upper, factor_hessian(hessian, impl=impl).upper)
    for weight, factor, result in zip(weights, factors, results, strict=True):
        alone = sparsegpt(weight, factor, Pattern.parse(text), **options)
        pairs = zip(result, alone, strict=True) if isinstance(weight, list) else [(result, alone)]
        for got, expected in pairs:
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@native
@pytest.mark.parametrize(("columns", "expected"), [(64, 1), (1152, 3)])
def test_small_layers_get_a_thread_each_and_large_ones_all(
    monkeypatch, three_threads, columns, expected
):
    seen = []
    original = _native.reversed_cholesky_

    def spy(hessian):
        seen.append(_native.loading.threads())
        return original(hessian)

    monkeypatch.setattr(_native, "reversed_cholesky_", spy)
    factor_hessians([torch.eye(columns)] * 2)
    assert seen == [expected] * 2
    assert _native.loading.threads() == 3


def test_errors_name_the_place():
    factor = factor_hessian(torch.eye(4))
    weights = [torch.ones(2, 4), torch.ones(2, 4).fill_(float("nan"))]
    with pytest.raises(ValueError, match="sparsegpt_batch: number 1: sparsegpt: .*a finite weight"):
        sparsegpt_batch(weights, [factor, factor], Pattern(0.5))
    with pytest.raises(ValueError, match="sparsegpt_batch: expected 2 factors for as many weights"):
        sparsegpt_batch(weights, [factor], Pattern(0.5))
    with pytest.raises(TypeError, match="factor_hessians: number 0: factor_hessian: .*float64"):
        factor_hessians([torch.eye(4).double()])


def test_empty_batches():
    assert factor_hessians([]) == []
    assert sparsegpt_batch([], [], Pattern(0.5)) == []
