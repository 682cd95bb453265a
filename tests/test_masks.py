"""select_mask, wanda and magnitude against a stable sort."""

import pytest
import torch
from numeric import implementation, lowest

from rac_kernels import Pattern, magnitude, select_mask, wanda

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
# One row, one column, off a vector, off a block of columns.
SHAPES = [(1, 1), (1, 24), (9, 1), (5, 60), (33, 120), (3, 260)]


def scores_of(rows, columns, dtype=torch.float32, ties=True):
    """Signed scores with ties, both zeros and infinities."""
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    scores = torch.randn(rows, columns, generator=generator)
    if ties:
        scores = (scores * 2).round() / 4
        scores[scores == 0] = torch.where(torch.rand(int((scores == 0).sum())) < 0.5, -0.0, 0.0)
        scores.view(-1)[::7] = float("inf")
        scores.view(-1)[3::11] = -float("inf")
    return scores.to(dtype)


def n_m_truth(scores, n, m):
    return ~lowest(scores.reshape(-1, m).double(), n).view_as(scores)


@implementation
@dtypes
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    "pattern", ["2:4", "1:4", "4:8", "1:2", "3:5", "0:4", "4:4", "7:20", "1:1"]
)
@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (5, 3), (33, 7)])
def test_n_m_is_a_stable_sort_of_each_group(impl, dtype, ties, pattern, rows, groups):
    pattern = Pattern.parse(pattern)
    scores = scores_of(rows, groups * pattern.m, dtype, ties)
    mask = select_mask(scores, pattern, impl=impl)
    assert torch.equal(mask, n_m_truth(scores, pattern.n, pattern.m))
    assert int(mask.sum()) == scores.numel() // pattern.m * (pattern.m - pattern.n)


@implementation
@dtypes
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_unstructured_is_a_stable_sort(impl, dtype, sparsity, rows, columns):
    scores, pattern = scores_of(rows, columns, dtype), Pattern(sparsity)
    wide = scores.double()
    by_row = ~lowest(wide, round(columns * sparsity))
    assert torch.equal(select_mask(scores, pattern, impl=impl), by_row)
    by_layer = ~lowest(wide.view(1, -1), round(wide.numel() * sparsity)).view_as(wide)
    assert torch.equal(select_mask(scores, pattern, "layer", impl=impl), by_layer)
    blocks = [b.reshape(1, -1) for b in wide.split(50, 1)]
    by_block = [~lowest(b, round(b.numel() * sparsity)).view(rows, -1) for b in blocks]
    found = select_mask(scores, pattern, "block", block_size=50, impl=impl)
    assert torch.equal(found, torch.cat(by_block, dim=1))


@implementation
def test_n_m_of_strided_scores(impl):
    scores = scores_of(40, 48)
    for strided in (scores[::2], scores[:, 4:44], scores.mT.contiguous().mT):
        assert not strided.is_contiguous()
        mask = select_mask(strided, Pattern.parse("2:4"), impl=impl)
        assert torch.equal(mask, n_m_truth(strided.contiguous(), 2, 4))


@implementation
@pytest.mark.parametrize("per", ["row", "layer"])
def test_unstructured_of_strided_scores(impl, per):
    scores = scores_of(40, 148)
    for strided in (scores[::2], scores[:, 4:144], scores.mT.contiguous().mT):
        mask = select_mask(strided, Pattern(0.4), per, impl=impl)
        together = strided.double().reshape(mask.shape[0] if per == "row" else 1, -1)
        truth = ~lowest(together, round(together.shape[1] * 0.4))
        assert torch.equal(mask, truth.view_as(mask))


@implementation
@pytest.mark.parametrize("pattern", ["0.5", "0.01", "2:4", "3:8", "1:148"])
@dtypes
def test_wanda_and_magnitude_are_a_stable_sort_of_their_scores(impl, dtype, pattern):
    pattern = Pattern.parse(pattern)
    weight = scores_of(37, 296, dtype).clamp(-3, 3)
    diagonal = torch.rand(296, generator=torch.Generator().manual_seed(0))
    diagonal[::5] = 0  # such scores are all ties
    scores = weight.float().abs() * diagonal.sqrt()
    expected = {"wanda": scores, "magnitude": weight.abs()}
    for name, found in (
        ("wanda", wanda(weight, diagonal, pattern, impl=impl)),
        ("magnitude", magnitude(weight, pattern, impl=impl)),
    ):
        per_row = name == "wanda"
        wide = expected[name].double().view(37 if per_row else 1, -1)
        if pattern.structured:
            truth = n_m_truth(expected[name], pattern.n, pattern.m)
        else:
            truth = ~lowest(wide, round(wide.shape[1] * pattern.sparsity)).view_as(weight)
        assert torch.equal(found[1], truth), name
        assert torch.equal(found[0], torch.where(truth, weight, 0)), name
        assert not found[0][~truth].signbit().any(), "a pruned weight is -0.0"


def test_hand_computed():
    scores = torch.tensor([[3.0, 1.0, 1.0, 2.0], [0.0, -0.0, -1.0, 5.0]])
    two_four = select_mask(scores, Pattern.parse("2:4")).tolist()
    assert two_four == [[True, False, False, True], [False, True, False, True]]
    # 3 of 8: -1, then 0.0 and -0.0, which are equal, by index
    layer = select_mask(scores, Pattern(0.375), "layer").tolist()
    assert layer == [[True] * 4, [False, False, False, True]]


def test_wanda_hand_computed():
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0], [4.0, 3.0, 2.0, 1.0]])
    diagonal = torch.tensor([100.0, 1.0, 0.0, 4.0])  # scores [[10, 2, 0, 8], [40, 3, 0, 2]]
    pruned, mask = wanda(weight, diagonal, Pattern(0.5))
    assert mask.tolist() == [[True, False, False, True], [True, True, False, False]]
    assert pruned.tolist() == [[1.0, 0.0, 0.0, -4.0], [4.0, 3.0, 0.0, 0.0]]
    pruned, mask = wanda(weight, diagonal, Pattern.parse("1:2"))
    assert mask.tolist() == [[True, False, False, True], [True, False, False, True]]


@implementation
def test_wanda_does_not_depend_on_the_number_of_tokens(impl):
    weight, diagonal = scores_of(20, 64, ties=False), torch.rand(64)
    for pattern in ("2:4", "1:8"):
        one = wanda(weight, diagonal, Pattern.parse(pattern), impl=impl)[1]
        many = wanda(weight, diagonal * 4096, Pattern.parse(pattern), impl=impl)[1]
        assert torch.equal(one, many)


def test_magnitude_hand_computed():
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0], [-0.5, 0.25, 2.0, 8.0]])
    pruned, mask = magnitude(weight, Pattern(0.5))  # 1, -2, -.5, .25; the other 2 comes later
    assert mask.tolist() == [[False, False, True, True], [False, False, True, True]]
    assert pruned.tolist() == [[0.0, 0.0, 3.0, -4.0], [0.0, 0.0, 2.0, 8.0]]
    _, mask = magnitude(weight, Pattern.parse("1:2"))
    assert mask.tolist() == [[False, True, False, True], [True, False, False, True]]


@dtypes
def test_weights_are_not_changed_and_keep_their_dtype(dtype):
    weight = scores_of(6, 16, dtype, ties=False)
    before = weight.clone()
    for pruned, mask in (
        magnitude(weight, Pattern(0.5)),
        wanda(weight, torch.ones(16), Pattern(0.5)),
    ):
        assert pruned.dtype == dtype
        assert torch.equal(pruned, torch.where(mask, before, 0))
    assert torch.equal(weight, before)


@implementation
@pytest.mark.parametrize("place", [0, 77, 149, 299])
@pytest.mark.parametrize("pattern", ["0.5", "0", "1", "2:4", "1:100"])
@dtypes
def test_one_nan_anywhere_is_refused(impl, dtype, pattern, place):
    pattern, scores = Pattern.parse(pattern), scores_of(3, 100, dtype, ties=False)
    scores.view(-1)[place] = float("nan")
    for per in ("row", "block", "layer"):
        with pytest.raises(ValueError, match=r"select_mask: expected scores without NaN, got NaN"):
            select_mask(scores, pattern, per, block_size=30, impl=impl)
    with pytest.raises(ValueError, match="wanda: expected scores without NaN"):
        wanda(scores, torch.ones(100), pattern, impl=impl)
    with pytest.raises(ValueError, match="magnitude: expected scores without NaN"):
        magnitude(scores, pattern, impl=impl)
    scores.view(-1)[place] = float("inf")
    diagonal = torch.ones(100)
    diagonal[place % 100] = 0  # Inf * 0
    with pytest.raises(ValueError, match="wanda: expected scores without NaN"):
        wanda(scores, diagonal, pattern, impl=impl)


def test_bad_input_is_named():
    scores, half = scores_of(4, 6), Pattern(0.5)
    with pytest.raises(ValueError, match=r"select_mask: expected scores without NaN, got NaN in"):
        select_mask(scores * 0 / 0, half)
    with pytest.raises(ValueError, match="per 'row', 'block' or 'layer', got 'column'"):
        select_mask(scores, half, "column")
    with pytest.raises(ValueError, match="in_features that are a multiple of 4 for 2:4, got 6"):
        select_mask(scores, Pattern.parse("2:4"))
    with pytest.raises(TypeError, match="expected a Pattern, got float 0.5"):
        select_mask(scores, 0.5)
    with pytest.raises(TypeError, match="expected scores in float32, bfloat16, float16"):
        select_mask(scores.double(), half)
    with pytest.raises(ValueError, match="block_size >= 1, got 0"):
        select_mask(scores, half, "block", block_size=0)
    with pytest.raises(ValueError, match=r"wanda: expected hessian_diagonal \[6\], got \[5\]"):
        wanda(scores, torch.ones(5), half)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="wanda: expected a finite hessian_diagonal >= 0"):
            wanda(scores, torch.full((6,), bad), half)
    with pytest.raises(ValueError, match="wanda: .*NaN"):
        wanda(torch.full((4, 6), float("nan")), torch.ones(6), half)
    with pytest.raises(ValueError, match="magnitude: .*NaN"):
        magnitude(torch.full((4, 6), float("nan")), half)


def test_an_explicit_implementation_never_falls_back(monkeypatch):
    scores = scores_of(4, 260)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    for op in (select_mask, magnitude, lambda s, p, impl: wanda(s, torch.ones(260), p, impl=impl)):
        with pytest.raises(ValueError, match="impl='triton' cannot run: it runs on a GPU, and the"):
            op(scores, Pattern(0.5), impl="triton")
