"""ALPS against the published iteration in float64, exact least squares, and SparseGPT."""

import itertools

import pytest
import torch
from alps_truth import best_on, loss_of, published_admm
from numeric import activations, damped, layer

from rac_kernels import (
    PackedTriangle,
    Pattern,
    alps,
    factor_hessian,
    hessian_accumulate_,
    sparsegpt,
    symmetrize_,
)

# R or C of 1, C off a block of 128, wide and tall: solves by triangles and by an inverse.
SHAPES = [(1, 1), (1, 40), (7, 1), (33, 200), (5, 300), (200, 36)]


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize(
    ("rows", "columns", "pattern"),
    [
        (rows, columns, pattern)
        for rows, columns in SHAPES
        for pattern in ("0.6", "0.3", "2:4", "1:3")
        if ":" not in pattern or columns % int(pattern[2:]) == 0
    ],
)
def test_agrees_with_the_published_iteration(impl, rows, columns, pattern):
    pattern = Pattern.parse(pattern)
    weight, hessian = layer(rows, columns)
    before = weight.clone(), hessian.clone()
    pruned, mask, loss = alps(weight, hessian, pattern, impl=impl)
    assert torch.equal(weight, before[0]) and torch.equal(hessian, before[1])
    assert mask.dtype == torch.bool and loss.dtype == torch.float64
    if pattern.structured:
        assert bool((mask.view(-1, pattern.m).sum(1) == pattern.m - pattern.n).all())
    else:
        assert int((~mask).sum()) == round(weight.numel() * pattern.sparsity)
    assert bool((pruned[~mask] == 0).all())
    # A near tie that falls the other way changes what follows: in float32 a few may differ.
    expected = published_admm(weight, hessian, pattern)
    assert int((mask != expected).sum()) <= max(2, 0.001 * weight.numel())
    exact = damped(hessian, 0.01)
    least = loss_of(weight, best_on(weight, expected, exact), exact)
    assert float(loss) == pytest.approx(least, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("pattern", ["0.6", "2:4"])
def test_weights_are_the_best_on_their_support(pattern):
    weight, hessian = layer(50, 120)
    pruned, mask, loss = alps(weight, hessian, Pattern.parse(pattern))
    exact = damped(hessian, 0.01)
    assert float(loss) == pytest.approx(loss_of(weight, pruned, exact), rel=1e-5)
    least = loss_of(weight, best_on(weight, mask, exact), exact)
    assert least <= float(loss) * (1 + 1e-6) and float(loss) <= least * 1.001


def test_two_inputs_by_hand():
    """Without the second weight the first takes over half of it: 2 + 0.5; 1 - 0.5^2 is left."""
    hessian = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    pruned, mask, loss = alps(torch.tensor([[2.0, 1.0]]), hessian, Pattern(0.5), damping=0.0)
    torch.testing.assert_close(pruned, torch.tensor([[2.5, 0.0]]))
    assert mask.tolist() == [[True, False]]
    assert float(loss) == pytest.approx(0.75, rel=1e-6)


def test_uncorrelated_inputs_by_hand():
    """Nothing can take over: |w| sqrt(H_jj) ranks the layer, what is kept stays bit for bit."""
    weight = torch.tensor([[3.0, -1.0], [0.5, 2.1]])
    hessian = torch.tensor([[1.0, 0.0], [0.0, 4.0]])  # scores 3, 2, 0.5, 4.2
    pruned, mask, loss = alps(weight, hessian, Pattern(0.5), damping=0.0)
    assert torch.equal(pruned, torch.tensor([[3.0, 0.0], [0.0, 2.1]]))
    assert float(loss) == pytest.approx(1 * 4 + 0.25 * 1)
    damped_loss = alps(weight, hessian, Pattern(0.5), damping=0.1)[2]  # adds 0.1 * 2.5 to H_jj
    assert float(damped_loss) == pytest.approx(1 * 4.25 + 0.25 * 1.25)


def test_close_to_the_best_of_all_supports():
    """One row of 10 weights: all 252 supports of 5 are tried."""
    ratios = []
    for seed in range(20):
        weight, hessian = layer(1, 10, seed=seed)
        exact = damped(hessian, 0.01)
        losses = []
        for kept in itertools.combinations(range(10), 5):
            keep = torch.zeros(1, 10, dtype=torch.bool)
            keep[0, list(kept)] = True
            losses.append(loss_of(weight, best_on(weight, keep, exact), exact))
        ratios.append(float(alps(weight, hessian, Pattern(0.5))[2]) / min(losses))
    assert min(ratios) > 1 - 1e-5
    assert sum(ratios) / len(ratios) < 1.25
    assert sum(ratio < 1.001 for ratio in ratios) >= 10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_rounded_once(dtype):
    weight, hessian = layer(10, 140)
    weight = weight.to(dtype)
    pruned, mask, loss = alps(weight, hessian, Pattern(0.5))
    exact = alps(weight.float(), hessian, Pattern(0.5))
    assert pruned.dtype == dtype
    assert torch.equal(pruned, exact[0].to(dtype))
    assert torch.equal(mask, exact[1]) and torch.equal(loss, exact[2])


@pytest.mark.parametrize("pattern", ["0.5", "2:4", "0"])
def test_weights_of_dead_columns_become_zero(pattern):
    x = activations(300, 136)
    dead = [0, 5, 127, 128]
    x[:, dead] = 0
    hessian = hessian_accumulate_(torch.zeros(136, 136), x)
    weight = torch.randn(8, 136, generator=torch.Generator().manual_seed(0))
    pruned, _, loss = alps(weight, hessian, Pattern.parse(pattern))
    alive = torch.ones(136, dtype=torch.bool).index_fill(0, torch.tensor(dead), False)
    assert not bool(pruned[:, dead].any())
    exact = damped(symmetrize_(hessian), 0.01)[alive][:, alive]
    expected = loss_of(weight[:, alive], pruned[:, alive], exact)
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    everything = alps(weight, torch.zeros(136, 136), Pattern.parse(pattern))
    assert not bool(everything[0].any()) and float(everything[2]) == 0


def test_nothing_and_everything():
    weight, hessian = layer(9, 40)
    pruned, mask, loss = alps(weight, hessian, Pattern(0.0))
    assert torch.equal(pruned, weight) and bool(mask.all()) and float(loss) == 0
    pruned, mask, loss = alps(weight, hessian, Pattern(1.0))
    assert not bool(pruned.any()) and not bool(mask.any())
    assert float(loss) == pytest.approx(loss_of(weight, pruned, damped(hessian, 0.01)), rel=1e-5)
    pruned, mask, loss = alps(weight[:0], hessian, Pattern(0.5))
    assert pruned.shape == mask.shape == (0, 40) and float(loss) == 0


def test_only_the_lower_triangle_is_read_and_may_be_packed():
    weight, hessian = layer(12, 200)
    expected = alps(weight, hessian, Pattern(0.5))
    unspecified = hessian.tril() + torch.full_like(hessian, float("nan")).triu(1)
    packed = PackedTriangle.pack(hessian)
    strided = torch.empty(200, 400)[:, ::2].copy_(hessian)
    for same in (unspecified, packed, strided):
        result = alps(weight, same, Pattern(0.5))
        assert torch.equal(result[0], expected[0])
        assert torch.equal(result[1], expected[1]) and torch.equal(result[2], expected[2])
    tall = torch.randn(24, 200, generator=torch.Generator().manual_seed(0))
    for view in (tall[::2], tall.mT.contiguous().mT[::2]):
        result = alps(view, hessian, Pattern(0.5))
        assert torch.equal(result[0], alps(view.contiguous(), hessian, Pattern(0.5))[0])


@pytest.mark.parametrize("power", [-60, 60])
def test_the_scale_of_the_sums_changes_nothing(power):
    weight, hessian = layer(12, 60)
    pruned, mask, loss = alps(weight, hessian, Pattern(0.5))
    scaled = alps(weight, hessian * 2.0**power, Pattern(0.5))
    assert torch.equal(scaled[0], pruned) and torch.equal(scaled[1], mask)
    assert float(scaled[2]) == float(loss) * 2.0**power


def test_rank_deficient_and_ill_conditioned():
    """Fewer tokens than columns, also undamped; column scales over four decades."""
    for tokens, spread, damping in ((20, 1.0, 0.01), (20, 1.0, 0.0), (400, 4.0, 1e-4)):
        weight, hessian = layer(12, 180, tokens=tokens, spread=spread)
        pruned, mask, loss = alps(weight, hessian, Pattern(0.6), damping=damping)
        exact = damped(hessian, damping)
        size = loss_of(weight, torch.zeros_like(weight), exact)
        expected = pytest.approx(loss_of(weight, pruned, exact), rel=1e-3, abs=1e-6 * size)
        assert float(loss) == expected
        theirs = sparsegpt(weight, factor_hessian(hessian, damping or 1e-4), Pattern(0.6))[0]
        assert loss_of(weight, pruned, exact) < loss_of(weight, theirs, exact)


def test_the_search_lowers_the_error():
    """A support near that of the largest scaled weights against the one that ADMM settles on."""
    weight, hessian = layer(60, 120)
    first, settled, longer = (
        float(alps(weight, hessian, Pattern(0.6), max_iterations=n)[2]) for n in (1, 300, 1000)
    )
    assert settled < 0.9 * first
    assert longer == settled


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("rows", "columns", "pattern"),
    [(33, 200, "0.6"), (5, 300, "0.6"), (200, 36, "2:4"), (512, 1024, "2:4"), (512, 1024, "0.7")],
)
def test_on_a_gpu(rows, columns, pattern, dtype):
    pattern = Pattern.parse(pattern)
    weight, hessian = layer(rows, columns)
    weight = weight.to(dtype)
    pruned, mask, loss = (t.cpu() for t in alps(weight.cuda(), hessian.cuda(), pattern))
    assert pruned.dtype == dtype and bool((pruned[~mask] == 0).all())
    expected = published_admm(weight, hessian, pattern)
    assert int((mask != expected).sum()) <= max(2, 0.001 * weight.numel())
    exact = damped(hessian, 0.01)
    least = loss_of(weight, best_on(weight, expected, exact), exact)
    assert float(loss) == pytest.approx(least, rel=1e-3)


def test_bad_input_is_named():
    weight, hessian = layer(6, 12)
    half, nan = Pattern(0.5), float("nan")
    bad = hessian.clone()
    bad[3, 1] = nan
    cases = {
        r"a hessian \[10, 10\] for weight \[6, 10\], got \[12, 12\]": (weight[:, :10], hessian, {}),
        r"a square hessian, got \[12, 10\]": (weight, hessian[:, :10], {}),
        r"weight with 2 dimensions, got \[12\]": (weight[0], hessian, {}),
        r"weight with data, got a tensor on the meta": (weight.to("meta"), hessian, {}),
        r"a finite weight, got NaN or Inf in weight \[6, 12\]": (weight / 0, hessian, {}),
        r"a finite H, got NaN or Inf in H \[12, 12\]": (weight, bad, {}),
        r"a finite H, got NaN or Inf on its diagonal": (weight, hessian * nan, {}),
        r"sums of squares on H's diagonal, got -1": (weight, -torch.eye(12), {}),
        r"damping >= 0, got -0.1": (weight, hessian, {"damping": -0.1}),
        r"damping >= 0, got inf": (weight, hessian, {"damping": float("inf")}),
        r"max_iterations >= 1, got 0": (weight, hessian, {"max_iterations": 0}),
        r"impl='native' does not exist for this op": (weight, hessian, {"impl": "native"}),
        r"H \[12, 12\] is not positive definite": (weight, 2 - torch.eye(12), {}),
    }
    for message, (w, h, options) in cases.items():
        with pytest.raises(ValueError, match="alps: .*" + message):
            alps(w, h, half, **options)
    with pytest.raises(ValueError, match="multiple of 5 for 2:5, got 12"):
        alps(weight, hessian, Pattern.parse("2:5"))
    with pytest.raises(TypeError, match="expected weight in float32, bfloat16, float16"):
        alps(weight.double(), hessian, half)
    with pytest.raises(TypeError, match="expected hessian in float32"):
        alps(weight, hessian.double(), half)
    with pytest.raises(TypeError, match="expected a Pattern, got str '0.5'"):
        alps(weight, hessian, "0.5")
