import pytest
import torch
from numeric import EPS32, activations, damped, standard_sparsegpt

from rac_kernels import (
    HessianFactor,
    Pattern,
    factor_hessian,
    hessian_accumulate_,
    native_status,
    sparsegpt,
    symmetrize_,
)

HAND_ROOT = torch.tensor(  # R; dyadic, so that U = R^-1 and everything after it is exact
    [[1.0, 0.5, 0.0, 0.25], [0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.0, 2.0]]
)
HAND_WEIGHT = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, -1.0, 1.0, 0.5]])
# rule: expected weight and loss, worked out on paper from R with e_j = w_j / R_jj, w_k -= e_j R_jk.
# Scores w^2/R_jj^2 at the start: [[1, 16, 9, 4], [16, 4, 1, .0625]].
HAND = {
    # row 0: e_0 = 1 -> 1.5 3 3.75; scores 9 > 3.52, e_3 = 1.875. row 1: e_1 = -2 -> 2 .5; e_3 = .25
    "1:2": ([[0, 1.5, 3, 0], [4, 0, 2, 0]], 1 + 1.875**2 + 4 + 0.25**2),
    # .0625, 1, 1 and the first of the two 4s. row 1: e_2 = 1 -> w_3 = 0, e_3 = 0
    "0.5": ([[0, 1.5, 3, 0], [4, -1, 0, 0]], 1 + 1.875**2 + 1),
    # threshold sort(scores)[4] = 4, both. row 1: e_1 = -2 -> 2 .5; e_2 = 2 -> -.5; e_3 = -.25
    "0.5 compat": ([[0, 1.5, 3, 0], [4, 0, 0, 0]], 1 + 1.875**2 + 4 + 4 + 0.25**2),
}

implementation = pytest.mark.parametrize(
    "impl",
    [
        "reference",
        pytest.param(
            "native",
            marks=pytest.mark.skipif(
                not native_status()["cpu"].startswith("ok"), reason=native_status()["cpu"]
            ),
        ),
    ],
)


def layer(rows, columns, tokens=None, seed=0, spread=1.0):
    """A weight [R, C] and the full float32 Hessian [C, C] of its input."""
    x = activations(tokens or 2 * columns + 10, columns, seed, spread)
    hessian = symmetrize_(hessian_accumulate_(torch.zeros(columns, columns), x))
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(rows, columns, generator=generator), hessian


@implementation
@pytest.mark.parametrize(("rule", "block_size"), [*((rule, 4) for rule in HAND), ("1:2", 2)])
def test_hand_computed(impl, rule, block_size):
    upper = torch.linalg.inv(HAND_ROOT)
    factor = HessianFactor(upper, 0.0, 1, torch.zeros(4, dtype=torch.bool))
    text, *compat = rule.split()
    weight, mask, loss = sparsegpt(
        HAND_WEIGHT,
        factor,
        Pattern.parse(text),
        block_size=block_size,
        compat=bool(compat),
        impl=impl,
    )
    expected = torch.tensor(HAND[rule][0])
    assert torch.equal(weight, expected)
    assert float(loss) == HAND[rule][1]
    zero = expected == 0
    if not compat and rule == "0.5":
        assert mask.tolist() == [[False, True, True, False], [True, True, False, False]]
    else:
        assert torch.equal(mask, ~zero)


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


@implementation
@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_larger_layer_has_the_same_masks_and_error(impl, pattern):
    pattern = Pattern.parse(pattern)
    weight, hessian = layer(256, 512, spread=2)
    pruned, mask, loss = sparsegpt(weight, factor_hessian(hessian), pattern, impl=impl)
    assert_agrees(weight, hessian, pattern, pruned, mask, loss)
    expected, _, _ = standard_sparsegpt(weight, hessian, pattern)
    assert output_error(weight, pruned, hessian) <= output_error(weight, expected, hessian) * (
        1 + 1e-4
    )


def output_error(weight, pruned, hessian):
    """||(W - Q) X||_F in float64."""
    change = (pruned - weight).double()
    return float(((change @ hessian.double()) * change).sum().sqrt())


@implementation
@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_counts_are_exact_in_every_block(impl, sparsity):
    weight, hessian = layer(9, 130)
    pruned, mask, loss = sparsegpt(
        weight, factor_hessian(hessian), Pattern(sparsity), block_size=50, impl=impl
    )
    for part in mask.split(50, dim=1):
        assert int((~part).sum()) == round(part.numel() * sparsity)
    if sparsity == 0:
        assert torch.equal(pruned, weight)
        assert float(loss) == 0
    if sparsity == 1:
        assert not bool(pruned.any())


@implementation
def test_ties_are_broken_by_the_lowest_index(impl):
    weight = torch.ones(4, 6)  # all scores equal under the identity
    factor = factor_hessian(torch.eye(6), damping=0.0)
    _, mask, _ = sparsegpt(weight, factor, Pattern(0.3), impl=impl)
    assert (~mask).flatten().nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    _, mask, _ = sparsegpt(weight, factor, Pattern.parse("1:3"), block_size=6, impl=impl)
    assert mask.tolist() == [[False, True, True] * 2] * 4


@implementation
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.99])
def test_compat_is_the_published_threshold_rule_ties_included(impl, sparsity):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-4, 5, (12, 40), generator=generator).float()  # many ties
    factor = factor_hessian(torch.eye(40) * 4, damping=0.0)  # R_jj = 0.5: no weight changes
    _, mask, _ = sparsegpt(weight, factor, Pattern(sparsity), block_size=16, compat=True, impl=impl)
    for w, kept in zip(weight.split(16, 1), mask.split(16, 1), strict=True):
        scores = w**2 / torch.full((1, w.shape[1]), 0.5) ** 2
        threshold = torch.sort(scores.flatten())[0][int(scores.numel() * sparsity)]
        assert torch.equal(kept, ~(scores <= threshold))


@implementation
def test_compat_agrees_with_the_standard_form(impl):
    weight, hessian = layer(20, 200)
    result = sparsegpt(weight, factor_hessian(hessian), Pattern(0.5), compat=True, impl=impl)
    assert_agrees(weight, hessian, Pattern(0.5), *result, compat=True)


@implementation
def test_compat_at_full_sparsity_prunes_all(impl):
    weight, hessian = layer(3, 20)
    pruned, mask, _ = sparsegpt(
        weight, factor_hessian(hessian), Pattern(1.0), compat=True, impl=impl
    )
    assert not bool(mask.any() | pruned.any())


@implementation
def test_prunes_to_a_given_mask(impl):
    weight, hessian = layer(11, 150)
    factor = factor_hessian(hessian)
    mask = torch.rand(11, 150, generator=torch.Generator().manual_seed(5)) < 0.6
    before = mask.clone()
    pruned, kept, loss = sparsegpt(weight, factor, None, mask=mask, impl=impl)
    assert torch.equal(kept, before)
    assert torch.equal(mask, before)
    assert kept.data_ptr() != mask.data_ptr()
    assert bool((pruned[~mask] == 0).all())
    upper = factor.upper.double()
    assert float(loss) == pytest.approx(
        float(((pruned - weight).double() @ upper).square().sum()), rel=1e-4
    )
    # the mask that a pattern chose gives what the pattern gave
    chosen = sparsegpt(weight, factor, Pattern(0.5), impl=impl)
    again = sparsegpt(weight, factor, None, mask=chosen[1], impl=impl)
    assert torch.equal(chosen[0], again[0])


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


def test_bad_input_is_named():
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
        r"impl='triton' does not exist for this op": (weight, factor, "0.5", {"impl": "triton"}),
    }
    for message, (w, f, pattern, options) in cases.items():
        with pytest.raises(ValueError, match="sparsegpt: .*" + message):
            sparsegpt(w, f, Pattern.parse(pattern), **options)
    with pytest.raises(TypeError, match="expected weight in float32, bfloat16, float16"):
        sparsegpt(weight.double(), factor, half)
    with pytest.raises(TypeError, match="expected a Pattern, got str '0.5'"):
        sparsegpt(weight, factor, "0.5")
    mask = torch.ones(6, 12, dtype=torch.bool)
    with pytest.raises(ValueError, match="either a pattern or a mask, got both"):
        sparsegpt(weight, factor, half, mask=mask)
    with pytest.raises(ValueError, match="either a pattern or a mask, got neither"):
        sparsegpt(weight, factor, None)
    with pytest.raises(ValueError, match=r"expected mask \[6, 12\], got \[5, 12\]"):
        sparsegpt(weight, factor, None, mask=mask[:5])
    with pytest.raises(TypeError, match="expected mask in bool, got torch.float32"):
        sparsegpt(weight, factor, None, mask=mask.float())
