"""The Triton SparseGPT against the published algorithm in float64, and against the reference."""

import pytest
import torch
from numeric import activations, layer
from test_sparsegpt import assert_agrees, output_error
from test_sparsegpt_masks import HAND, HAND_ROOT, HAND_WEIGHT
from triton_interpreter import DEVICE, needs_triton

from rac_kernels import (
    HessianFactor,
    Pattern,
    factor_hessian,
    hessian_accumulate_,
    sparsegpt,
    symmetrize_,
)

pytestmark = [
    needs_triton,
    *([pytest.mark.gpu] if DEVICE == "cuda" else []),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, of the interpreter
]
triton = pytest.importorskip("triton", reason="triton is not installed")

from rac_kernels._triton import sparsegpt as kernels  # noqa: E402
from rac_kernels._triton.split_product import high_part  # noqa: E402

tl = triton.language
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


def move(factor):
    """The factor on the device of the test."""
    upper = factor.upper.mT.contiguous().to(DEVICE).mT  # as factor_hessian lays it out
    return HessianFactor(upper, factor.damping, factor.attempts, factor.dead.to(DEVICE))


def solve(weight, hessian, pattern, impl="triton", **options):
    """Results on the CPU."""
    results = sparsegpt(
        weight.to(DEVICE), move(factor_hessian(hessian)), pattern, impl=impl, **options
    )
    return [result.cpu() for result in results]


# R or C of 1, C below, at and off a block of 128, wide and tall.
SHAPES = [(1, 1), (1, 40), (7, 1), (16, 128), (70, 36), (3, 260)]


@pytest.mark.parametrize(
    ("rows", "columns", "pattern"),
    [(r, c, p) for r, c in SHAPES for p in ("0.5", "2:4") if ":" not in p or c % 4 == 0],
)
def test_agrees_with_the_standard_form(rows, columns, pattern):
    pattern = Pattern.parse(pattern)
    weight, hessian = layer(rows, columns)
    assert_agrees(weight, hessian, pattern, *solve(weight, hessian, pattern))


def test_rank_deficient_and_ill_conditioned():
    for tokens, spread in ((20, 1.0), (400, 4.0)):
        weight, hessian = layer(9, 140, tokens=tokens, spread=spread)
        assert_agrees(weight, hessian, Pattern(0.5), *solve(weight, hessian, Pattern(0.5)))


@pytest.mark.parametrize("pattern", ["3:6", "1:2", "5:40", "20:32", "2:5", "0:4", "4:4"])
def test_any_n_m_is_chosen_on_updated_weights(pattern):
    pattern = Pattern.parse(pattern)
    columns = pattern.m * max(1, 80 // pattern.m)
    weight, hessian = layer(18, columns)
    options = {"block_size": columns // pattern.m // 2 * pattern.m or columns}
    pruned, mask, loss = solve(weight, hessian, pattern, **options)
    expected = solve(weight, hessian, pattern, "reference", **options)
    assert torch.equal(mask, expected[1])
    torch.testing.assert_close(pruned, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, expected[2], rtol=1e-5, atol=0)


@pytest.mark.parametrize("rule", HAND)
def test_hand_computed(rule):
    factor = HessianFactor(torch.linalg.inv(HAND_ROOT), 0.0, 1, torch.zeros(4, dtype=torch.bool))
    text, *compat = rule.split()
    options = {"block_size": 2 if text == "1:2" else 4, "compat": bool(compat)}
    pattern = Pattern.parse(text)
    weight, _, loss = sparsegpt(
        HAND_WEIGHT.to(DEVICE), move(factor), pattern, impl="triton", **options
    )
    assert torch.equal(weight.cpu(), torch.tensor(HAND[rule][0]))
    assert float(loss) == HAND[rule][1]


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 1.0])
def test_counts_are_exact_in_every_block(sparsity):
    weight, hessian = layer(9, 110)
    pruned, mask, loss = solve(weight, hessian, Pattern(sparsity), block_size=50)
    for part in mask.split(50, dim=1):
        assert int((~part).sum()) == round(part.numel() * sparsity)
    if sparsity == 0:
        assert torch.equal(pruned, weight) and float(loss) == 0
    if sparsity == 1:
        assert not bool(pruned.any())


def test_ties_are_broken_by_the_lowest_index():
    weight, hessian = torch.full((70, 40), 0.1), torch.eye(40)
    _, mask, _ = solve(weight, hessian, Pattern(0.3333))
    assert mask.flatten().tolist() == [False] * 933 + [True] * 1867
    _, mask, _ = solve(weight[:4], hessian, Pattern.parse("1:4"))
    assert mask.tolist() == [[False, True, True, True] * 10] * 4


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.99, 1.0])
def test_compat_takes_all_ties(sparsity):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-4, 5, (12, 40), generator=generator).float()
    factor = move(factor_hessian(torch.eye(40) * 4, damping=0.0))  # R_jj = 0.5: no weight changes
    _, mask, _ = sparsegpt(
        weight.to(DEVICE), factor, Pattern(sparsity), block_size=16, compat=True, impl="triton"
    )
    for w, kept in zip(weight.split(16, 1), mask.cpu().split(16, 1), strict=True):
        scores = w**2 / 0.25
        rank = min(int(scores.numel() * sparsity), scores.numel() - 1)
        assert torch.equal(kept, ~(scores <= torch.sort(scores.flatten())[0][rank]))


def test_prunes_to_a_given_mask():
    weight, hessian = layer(11, 150)
    mask = torch.rand(11, 150, generator=torch.Generator().manual_seed(5)) < 0.6
    pruned, kept, loss = solve(weight, hessian, None, mask=mask.to(DEVICE))
    expected = solve(weight, hessian, None, "reference", mask=mask.to(DEVICE))
    assert torch.equal(kept, mask)
    torch.testing.assert_close(pruned, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, expected[2], rtol=1e-5, atol=0)


# A block whose count the mask exceeds, one that it exceeds in some rows, one that it leaves room
# in; compat with ties; a network of four, ranking, a step of several groups and a part of one.
@pytest.mark.parametrize("rule", ["0.5", "0.1", "0.5 compat", "2:4", "3:5", "20:40"])
def test_grows_a_mask_as_the_reference_does(rule):
    text, *compat = rule.split()
    pattern = Pattern.parse(text)
    weight, hessian = layer(9, 80)
    mask = torch.rand(9, 80, generator=torch.Generator().manual_seed(7)) < 0.7
    mask[0], mask[1] = True, False
    mask[:, 40:48] = False
    options = {"mask": mask.to(DEVICE), "compat": bool(compat), "block_size": 40}
    before = options["mask"].clone()
    pruned, kept, loss = solve(weight, hessian, pattern, **options)
    expected = solve(weight, hessian, pattern, "reference", **options)
    assert torch.equal(kept, expected[1])
    assert torch.equal(options["mask"], before)
    assert torch.equal(pruned != 0, kept)
    torch.testing.assert_close(pruned, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, expected[2], rtol=1e-5, atol=0)
    if pattern.structured:
        given, pruned_of = ((~m).view(9, -1, pattern.m).sum(2) for m in (mask, kept))
        assert torch.equal(pruned_of, given.clamp(min=pattern.n))


@pytest.mark.parametrize("compat", [False, True])
def test_grown_masks_take_the_lowest_of_the_rest_and_the_first_of_ties(compat):
    weight = torch.tensor([[0.0, 4.0, 3.0, -2.0, 2.0, 9.0], [5.0, 5.0, 2.0, 5.0, 5.0, 5.0]])
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[0, 1] = mask[1, 5] = False
    options = {"mask": mask.to(DEVICE), "compat": compat}
    _, kept, _ = solve(weight, torch.eye(6), Pattern(0.25 if compat else 0.3333), **options)
    # four go, the given two among them: 0 and the first 2; compat takes all of the 2s.
    pruned = [[0, 0], [0, 1], [0, 3], [1, 5]] + compat * [[0, 4], [1, 2]]
    assert sorted(pruned) == (~kept).nonzero().tolist()


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_grown_from_a_mask_that_prunes_nothing_it_is_the_pattern(pattern):
    weight, hessian = layer(4, 40)
    free = torch.ones(4, 40, dtype=torch.bool, device=DEVICE)
    grown = solve(weight, hessian, Pattern.parse(pattern), mask=free)
    for mine, theirs in zip(grown, solve(weight, hessian, Pattern.parse(pattern)), strict=True):
        assert torch.equal(mine, theirs)


def test_each_of_stacked_matrices_grows_its_own_mask():
    weight, hessian = layer(12, 36)
    mask = torch.rand(12, 36, generator=torch.Generator().manual_seed(3)) < 0.6
    mask[5:] |= torch.rand(7, 36, generator=torch.Generator().manual_seed(4)) < 0.9
    parts, masks = [weight[:5], weight[5:]], [mask[:5], mask[5:]]
    factor = move(factor_hessian(hessian))
    stacked = sparsegpt(
        [p.to(DEVICE) for p in parts],
        factor,
        Pattern(0.3),
        mask=[m.to(DEVICE) for m in masks],
        impl="triton",
    )
    for part, own, result in zip(parts, masks, stacked, strict=True):
        alone = solve(part, hessian, Pattern(0.3), "reference", mask=own.to(DEVICE))
        assert torch.equal(result[1].cpu(), alone[1])
        torch.testing.assert_close(result[0].cpu(), alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_weights_of_dead_columns_become_zero(pattern):
    x = activations(300, 136)
    dead = [0, 5, 127, 128]
    x[:, dead] = 0
    hessian = symmetrize_(hessian_accumulate_(torch.zeros(136, 136), x))
    weight, pattern = torch.randn(8, 136), Pattern.parse(pattern)
    pruned, mask, loss = solve(weight, hessian, pattern)
    assert not bool(pruned[:, dead].any())
    live = weight.index_fill(1, torch.tensor(dead), 0)
    assert_agrees(live, hessian, pattern, pruned, mask, loss)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_rounded_once(dtype):
    weight, hessian = layer(10, 140)
    weight = weight.to(dtype)
    pruned, mask, loss = solve(weight, hessian, Pattern(0.5))
    exact, exact_mask, exact_loss = solve(weight.float(), hessian, Pattern(0.5))
    assert torch.equal(pruned, exact.to(dtype)) and pruned.dtype == dtype
    assert torch.equal(mask, exact_mask)
    assert torch.equal(loss, exact_loss)


def test_strides():
    weight, hessian = layer(20, 136)
    expected = solve(weight[::2].contiguous(), hessian, Pattern(0.5))
    for strided in (weight[::2], weight[::2].mT.contiguous().mT):
        for mine, theirs in zip(solve(strided, hessian, Pattern(0.5)), expected, strict=True):
            assert torch.equal(mine, theirs)
    factor = move(factor_hessian(hessian))
    rows = HessianFactor(factor.upper.contiguous(), 0.0, 1, factor.dead)  # the other order
    result = sparsegpt(weight[::2].to(DEVICE), rows, Pattern(0.5), impl="triton")
    assert torch.equal(result[0].cpu(), expected[0])


@triton.jit
def high_part_kernel(x_ptr, high_ptr, SIZE: tl.constexpr):
    offs = tl.arange(0, SIZE)
    tl.store(high_ptr + offs, high_part(tl.load(x_ptr + offs)))


def test_high_parts_have_eleven_bits():
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    x[:4] = torch.tensor([0.0, -1.0, 1 + 2.0**-11, -(2 - 2.0**-23)])
    high = torch.empty_like(x)
    high_part_kernel[(1,)](x, high, SIZE=4096)
    assert high[:4].tolist() == [0.0, -1.0, 1 + 2.0**-10, -2.0]
    assert not bool((high.view(torch.int32) & 0x1FFF).any())
    assert bool(((x - high).abs() <= 2.0**-11 * x.abs()).all())
    low = x.double() - high.double()
    assert torch.equal((x - high).double(), low)  # exact


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "4:8"])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [pytest.param(*s, marks=gpu) for s in ((1536, 1536), (512, 3584), (18944, 3584), (3584, 9472))],
)
def test_real_sizes(rows, columns, pattern, dtype):
    hessian = torch.zeros(columns, columns, device="cuda")
    for seed in range(2):
        hessian_accumulate_(hessian, activations(columns, columns, seed).cuda())
    symmetrize_(hessian)
    weight = torch.randn(rows, columns, device="cuda").to(dtype)
    factor, pattern = factor_hessian(hessian), Pattern.parse(pattern)
    pruned, mask, loss = sparsegpt(weight, factor, pattern, impl="triton")
    expected, expected_mask, expected_loss = sparsegpt(weight, factor, pattern, impl="reference")
    assert (mask == expected_mask).double().mean() >= 0.9999
    error, their_error = (output_error(weight, q, hessian) for q in (pruned, expected))
    assert error <= their_error * (1 + 1e-4)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-4)


@pytest.mark.parametrize("pattern", [pytest.param(p, marks=gpu) for p in ("0.5", "2:4")])
@pytest.mark.parametrize("grow", [False, True])
def test_the_host_waits_for_nothing_inside_a_matrix(pattern, grow):
    weight = torch.randn(2000, 1100, device="cuda")
    masks = [torch.rand_like(weight) < 0.7] if grow else None
    factor = factor_hessian(torch.eye(1100, device="cuda"))
    job = ([weight], factor.upper, factor.dead, Pattern.parse(pattern))
    options = {"block_size": 128, "compat": False, "masks": masks}
    expected = kernels.sparsegpt(*job, **options)[0]
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = kernels.sparsegpt(*job, **options)[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(result[0], expected[0])
