"""Which weights SparseGPT prunes: worked out by hand, counted, tied, published, given."""

import pytest
import torch
from numeric import implementation, layer

from rac_kernels import HessianFactor, Pattern, factor_hessian, sparsegpt

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
@pytest.mark.parametrize("rule", ["0.5", "0.8", "0.1", "0.5 compat", "2:4"])
def test_grows_a_mask(impl, rule):
    weight, hessian = layer(24, 256)
    factor = factor_hessian(hessian)
    mask = torch.rand(24, 256, generator=torch.Generator().manual_seed(7)) < 0.7
    mask[0] = True
    mask[1] = False
    text, *compat = rule.split()
    pattern = Pattern.parse(text)
    pruned, kept, loss = sparsegpt(
        weight, factor, pattern, mask=mask, compat=bool(compat), impl=impl
    )
    assert not bool((kept & ~mask).any()), "a pruned weight came back"
    assert torch.equal(pruned != 0, kept)
    if pattern.structured:
        before, after = (m.view(24, -1, 4).logical_not().sum(2) for m in (mask, kept))
        assert torch.equal(after, before.clamp(min=2))
    elif not compat:
        for before, after in zip(mask.split(128, 1), kept.split(128, 1), strict=True):
            count = max(round(before.numel() * pattern.sparsity), int((~before).sum()))
            assert int((~after).sum()) == count
    # what it ends with is what pruning to that mask gives
    again = sparsegpt(weight, factor, None, mask=kept, impl=impl)
    assert torch.equal(again[0], pruned) and torch.equal(again[2], loss)
    # with nothing to keep apart, it is the pattern alone
    alone = sparsegpt(weight, factor, pattern, compat=bool(compat), impl=impl)
    free = torch.ones_like(mask)
    grown = sparsegpt(weight, factor, pattern, mask=free, compat=bool(compat), impl=impl)
    assert all(torch.equal(a, b) for a, b in zip(alone, grown, strict=True))


@implementation
def test_grown_masks_take_the_lowest_of_the_rest(impl):
    weight = torch.tensor([[0.0, 4.0, 3.0, 2.0, 1.0, 9.0]])
    mask = torch.tensor([[True, False, True, True, True, True]])
    factor = factor_hessian(torch.eye(6), damping=0.0)
    _, kept, _ = sparsegpt(weight, factor, Pattern(0.5), mask=mask, impl=impl)
    assert kept.tolist() == [[False, False, True, True, False, True]]
