"""ALPS on the layers of a trained model."""

import itertools

import pytest
from alps_truth import loss_of

from rac.assets.problems import generate_problems
from rac.calibration import HessianCollector, Sequence, batches, collect_in_one_pass, find_groups
from rac.models import get_weight, linears, load_model, load_tokenizer
from rac.prompts import render
from rac_kernels import Pattern, alps, factor_hessian, sparsegpt, symmetrize_


@pytest.fixture(scope="module")
def embedded():
    """Weights [R, C] and H of the embedded model's first and last layer on problems it solves."""
    model, tokenizer = load_model("embedded", "cpu", "float32"), load_tokenizer("embedded")
    problems = itertools.islice(generate_problems("calibration"), 16)
    texts = [(render(tokenizer, p.prompt), tokenizer(p.response).input_ids) for p in problems]
    groups = [group for group in find_groups(model) if group.layer in (0, 3)]
    collector = HessianCollector(model, groups)
    collect_in_one_pass(collector, list(batches([Sequence(a + b, len(a)) for a, b in texts])))
    modules = linears(model)
    return [
        (name, get_weight(modules[name]), collector.hessian(group.name))
        for group in groups
        for name in group.linears
    ]


@pytest.mark.parametrize("pattern", ["0.6", "0.7", "2:4"])
def test_less_error_than_sparsegpt_on_a_trained_model(pattern, embedded):
    pattern, ratios = Pattern.parse(pattern), []
    for name, weight, hessian in embedded:
        theirs = sparsegpt(weight, factor_hessian(hessian), pattern)[0]
        ours = alps(weight, hessian, pattern)[0]
        assert (ours == 0).double().mean() == pytest.approx(pattern.sparsity, abs=1e-4)
        exact = symmetrize_(hessian).double()  # undamped: ||(W - Q) X||^2
        ratios.append((loss_of(weight, ours, exact) / loss_of(weight, theirs, exact)) ** 0.5)
        assert ratios[-1] <= 0.8, name
    assert len(ratios) == 14 and sum(ratios) / 14 < 0.6
