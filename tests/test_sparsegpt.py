import pytest
import torch
from numeric import EPS32, activations, damped, implementation, layer, standard_sparsegpt

from rac_kernels import Pattern, factor_hessian, hessian_accumulate_, sparsegpt, symmetrize_

# R or C of 1, C below, at and off a block of 128, wide and tall, R off a tile of 16.
SHAPES = [(1, 1), (1, 40), (7, 1), (16, 128), (33, 200), (5, 300), (200, 36)]


@implementation
@pytest.mark.parametrize(
    ("rows", "columns", "pattern"),
    [
        (rows, columns, pattern)
        for rows, columns in SHAPES
        for pattern in ("0.5", "0.3", "2:4", "1:4")
        if ":" not in pattern or columns % 4 == 0
    ],
)
def test_agrees_with_the_standard_form(impl, rows, columns, pattern):
    pattern = Pattern.parse(pattern)
    weight, hessian = layer(rows, columns)
    pruned, mask, loss = sparsegpt(weight, factor_hessian(hessian), pattern, impl=impl)
    assert_agrees(weight, hessian, pattern, pruned, mask, loss)


def assert_agrees(weight, hessian, pattern, pruned, mask, loss, damping=0.01, compat=False):
    expected, expected_mask, expected_loss = standard_sparsegpt(
        weight, hessian, pattern, damping=damping, compat=compat
    )
    assert (mask == expected_mask).double().mean() >= 0.9999
    assert bool((pruned[~mask] == 0).all())
    # Backward stable throughout: what is computed is exact for some H + E, |E| <= c eps |H|, so
    # the change D is off by at most c kappa(H) eps ||D|| a row (Higham, chapters 8 and 10, first
    # order). The worst case has c ~ C; rounding errors cancel, and c = 4 holds with room to spare.
    eigenvalues = torch.linalg.eigvalsh(damped(hessian, damping))
    kappa = float(eigenvalues[-1] / eigenvalues[0])
    relative = 4 * kappa * EPS32
    same = (mask == expected_mask).all(1)
    change = (expected - weight)[same].norm(dim=1)
    error = (pruned - expected)[same].norm(dim=1)
    assert bool((error <= relative * change + EPS32 * weight[same].norm(dim=1)).all()), (
        f"error {float(error.max())}, relative bound {relative}"
    )
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-3)
    ours, theirs = (output_error(weight, q, hessian) for q in (pruned, expected))
    assert ours <= (1 + 1e-4) * theirs, f"output error {ours}, of the reference {theirs}"


@implementation
@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_larger_layer_has_the_same_masks_and_error(impl, pattern):
    pattern = Pattern.parse(pattern)
    weight, hessian = layer(256, 512, spread=2)
    pruned, mask, loss = sparsegpt(weight, factor_hessian(hessian), pattern, impl=impl)
    assert_agrees(weight, hessian, pattern, pruned, mask, loss)


def output_error(weight, pruned, hessian):
    """||(W - Q) X||_F in float64."""
    change = (pruned - weight).double()
    return float(((change @ hessian.double()) * change).sum().sqrt())


@implementation
def test_compat_agrees_with_the_standard_form(impl):
    weight, hessian = layer(20, 200)
    result = sparsegpt(weight, factor_hessian(hessian), Pattern(0.5), compat=True, impl=impl)
    assert_agrees(weight, hessian, Pattern(0.5), *result, compat=True)


@implementation
@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_loss_is_the_output_error_on_the_damped_hessian(impl, pattern):
    weight, hessian = layer(30, 260)
    pruned, _, loss = sparsegpt(weight, factor_hessian(hessian), Pattern.parse(pattern), impl=impl)
    change = (pruned - weight).double()
    quadratic = ((change @ damped(hessian, 0.01)) * change).sum()
    assert float(loss) == pytest.approx(float(quadratic), rel=1e-4)
    assert loss.dtype == torch.float64


@implementation
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_rounded_once(impl, dtype):
    weight, hessian = layer(10, 140)
    weight, factor = weight.to(dtype), factor_hessian(hessian)
    pruned, mask, loss = sparsegpt(weight, factor, Pattern(0.5), impl=impl)
    exact, exact_mask, exact_loss = sparsegpt(weight.float(), factor, Pattern(0.5), impl=impl)
    assert pruned.dtype == dtype
    assert torch.equal(pruned, exact.to(dtype))
    assert torch.equal(mask, exact_mask)
    assert torch.equal(loss, exact_loss)


@implementation
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "0"])
def test_weights_of_dead_columns_become_zero(impl, pattern):
    x = activations(300, 136)
    dead = [0, 5, 127, 128]
    x[:, dead] = 0
    hessian = symmetrize_(hessian_accumulate_(torch.zeros(136, 136), x))
    weight = torch.randn(8, 136, generator=torch.Generator().manual_seed(0))
    before = weight.clone()
    pattern = Pattern.parse(pattern)
    pruned, mask, loss = sparsegpt(weight, factor_hessian(hessian), pattern, impl=impl)
    assert not bool(pruned[:, dead].any())
    assert torch.equal(weight, before)
    assert_agrees(weight.index_fill(1, torch.tensor(dead), 0), hessian, pattern, pruned, mask, loss)


@implementation
def test_rank_deficient_and_ill_conditioned(impl):
    for tokens, spread in ((20, 1.0), (400, 4.0)):
        weight, hessian = layer(12, 180, tokens=tokens, spread=spread)
        pruned, mask, loss = sparsegpt(weight, factor_hessian(hessian), Pattern(0.5), impl=impl)
        assert_agrees(weight, hessian, Pattern(0.5), pruned, mask, loss)


@implementation
def test_weight_with_strides(impl):
    weight, hessian = layer(40, 140)
    factor = factor_hessian(hessian)
    expected = sparsegpt(weight[::2].contiguous(), factor, Pattern(0.5), impl=impl)
    for strided in (weight[::2], weight[::2].mT.contiguous().mT):
        result = sparsegpt(strided, factor, Pattern(0.5), impl=impl)
        assert torch.equal(result[0], expected[0])
        assert torch.equal(result[1], expected[1])


def test_bad_input_is_named(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    weight, hessian = layer(6, 12)
    factor, half = factor_hessian(hessian), Pattern(0.5)
    cases = {
        r"in_features that are a multiple of 5 for 2:5, got 12": (weight, factor, "2:5", {}),
        r"block_size that is a multiple of 4 for 2:4, got 6": (
            weight,
            factor,
            "2:4",
            {"block_size": 6},
        ),
        r"a factor \[10, 10\] for weight \[6, 10\], got \[12, 12\]": (
            weight[:, :10],
            factor,
            "0.5",
            {},
        ),
        r"weight with 2 dimensions, got \[12\]": (weight[0], factor, "0.5", {}),
        r"block_size >= 1, got 0": (weight, factor, "0.5", {"block_size": 0}),
        r"a finite weight, got NaN or Inf in weight \[6, 12\]": (weight / 0, factor, "0.5", {}),
        r"weight with data, got a tensor on the meta": (weight.to("meta"), factor, "0.5", {}),
        r"impl='triton' cannot run: it runs on a GPU": (weight, factor, "0.5", {"impl": "triton"}),
    }
    for message, (w, f, pattern, options) in cases.items():
        with pytest.raises(ValueError, match="sparsegpt: .*" + message):
            sparsegpt(w, f, Pattern.parse(pattern), **options)
    with pytest.raises(TypeError, match="expected weight in float32, bfloat16, float16"):
        sparsegpt(weight.double(), factor, half)
    with pytest.raises(TypeError, match="expected a Pattern, got str '0.5'"):
        sparsegpt(weight, factor, "0.5")
    mask = torch.ones(6, 12, dtype=torch.bool)
    with pytest.raises(ValueError, match="a pattern or a mask, got neither"):
        sparsegpt(weight, factor, None)
    for pattern in (None, half):
        with pytest.raises(ValueError, match=r"expected mask \[6, 12\], got \[5, 12\]"):
            sparsegpt(weight, factor, pattern, mask=mask[:5])
    with pytest.raises(TypeError, match="expected mask in bool, got torch.float32"):
        sparsegpt(weight, factor, None, mask=mask.float())
