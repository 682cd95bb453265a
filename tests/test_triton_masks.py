"""The Triton masks against a stable sort; scores with ties, both zeros and infinities."""

import pytest
import torch
from numeric import lowest
from triton_interpreter import DEVICE, needs_triton

from rac_kernels import Pattern, magnitude, select_mask, wanda

pytestmark = [
    needs_triton,
    *([pytest.mark.gpu] if DEVICE == "cuda" else []),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, of the interpreter
]
pytest.importorskip("triton", reason="triton is not installed")

from rac_kernels._triton import row_mask  # noqa: E402
from rac_kernels._triton import select_mask as kernels  # noqa: E402

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


def scores_of(rows, columns, dtype=torch.float32, ties=True):
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    scores = torch.randn(rows, columns, generator=generator)
    if ties:
        scores = (scores * 2).round() / 4
        scores[:, ::5] *= -0.0
        scores.view(-1)[::7] = float("inf")
        scores.view(-1)[3::11] = -float("inf")
    return scores.to(DEVICE, dtype)


def truth(scores, pattern, per="row", block_size=128):
    """A stable sort of each group, row, block or layer, in float64 on the CPU."""
    wide = scores.cpu().double()
    if pattern.structured:
        keep = ~lowest(wide.reshape(-1, pattern.m), pattern.n).view_as(wide)
    elif per == "row":
        keep = ~lowest(wide, round(wide.shape[1] * pattern.sparsity))
    else:
        size = wide.shape[1] if per == "layer" else block_size
        blocks = [b.reshape(1, -1) for b in wide.split(size, 1)]
        parts = [~lowest(b, round(b.numel() * pattern.sparsity)) for b in blocks]
        keep = torch.cat([part.view(wide.shape[0], -1) for part in parts], 1)
    return keep.to(scores.device)


# 2:4's network with vectors of 4 and 8, ranking, a group as wide as a tile, groups that are rows.
@dtypes
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("pattern", "columns"),
    [("2:4", 12), ("2:4", 48), ("1:4", 8), ("3:4", 16), ("0:4", 8), ("4:4", 8), ("1:1", 3)]
    + [("1:2", 20), ("3:5", 15), ("4:8", 64), ("7:20", 60), ("16:32", 96), ("40:64", 128)],
)
def test_n_m(dtype, ties, pattern, columns):
    pattern = Pattern.parse(pattern)
    for rows in (1, 19):
        scores = scores_of(rows, columns, dtype, ties)
        assert torch.equal(select_mask(scores, pattern, impl="triton"), truth(scores, pattern))


# One tile of several rows, a row of one column, a tail of columns, a tail that is one column.
@dtypes
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (40, 60), (3, 130), (2, 1100), (1, 2049)])
def test_share_of_a_row(dtype, ties, rows, columns):
    scores = scores_of(rows, columns, dtype, ties)
    for sparsity in (0.5, 0.0, 0.9, 1.0) if columns in (1, 130) else (0.4,):
        pattern = Pattern(sparsity)
        assert torch.equal(select_mask(scores, pattern, impl="triton"), truth(scores, pattern))


def test_ties_of_a_row_are_found_over_several_chunks(monkeypatch):
    monkeypatch.setattr(row_mask, "CHUNK", 64)
    scores = torch.zeros(2, 1100, device=DEVICE)
    scores[0, ::3], scores[1, 1050:] = 1.0, -1.0
    mask = select_mask(scores, Pattern(0.5), impl="triton")
    assert torch.equal(mask, truth(scores, Pattern(0.5)))


@pytest.mark.parametrize("columns", [1, 1024, 1025, 1280, 1281, 5120, 16384, 18944, 27648, 32768])
def test_two_powers_of_two_cover_a_row(columns):
    shape = row_mask.row_blocks(columns)
    block, tail = shape["BLOCK_C"], shape["TAIL_C"]
    assert block + tail >= columns and block <= row_mask.MAX_ROW // 2
    assert all(size & (size - 1) == 0 for size in (block, tail))
    assert shape["CHUNK_C"] <= block


@dtypes
@pytest.mark.parametrize("per", ["layer", "block"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (50, 130), (2, 4100)])
def test_share_of_a_layer_or_a_block(dtype, per, rows, columns):
    scores, size = scores_of(rows, columns, dtype), 70 if columns < 1000 else 4097
    for sparsity in (0.5, 0.0, 1.0) if columns == 130 else (0.5,):
        pattern = Pattern(sparsity)
        mask = select_mask(scores, pattern, per, block_size=size, impl="triton")
        assert torch.equal(mask, truth(scores, pattern, per, size))


def test_long_rows_are_selected_as_a_layer_is(monkeypatch):
    monkeypatch.setattr(kernels, "MAX_ROW", 64)
    for ties in (False, True):
        scores = scores_of(5, 200, ties=ties)
        mask = select_mask(scores, Pattern(0.3), impl="triton")
        assert torch.equal(mask, truth(scores, Pattern(0.3)))


def test_many_equal_scores_are_cut_at_the_right_one():
    scores = torch.full((60, 100), -0.0, device=DEVICE)
    mask = select_mask(scores, Pattern(0.3333), "layer", impl="triton")
    assert mask.flatten().tolist() == [False] * 2000 + [True] * 4000


@pytest.mark.parametrize("pattern", ["2:4", "1:3", "0.5"])
@pytest.mark.parametrize("per", ["row", "layer"])
def test_strides(pattern, per):
    scores, pattern = scores_of(24, 48), Pattern.parse(pattern)
    for strided in (scores[::2], scores[:, 4:40], scores.mT.contiguous().mT):
        mask = select_mask(strided, pattern, per, impl="triton")
        assert torch.equal(mask, truth(strided, pattern, per))


@dtypes
@pytest.mark.parametrize("pattern", ["2:4", "3:6", "20:40", "0.5", "0.3"])
def test_wanda_and_magnitude_are_the_references(dtype, pattern):
    weight = scores_of(13, 120, dtype, ties=False)
    diagonal = torch.rand(120, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    diagonal[7] = 0
    before = weight.clone()
    for op in (wanda, lambda w, _, p, impl: magnitude(w, p, impl=impl)):
        pruned, mask = op(weight, diagonal, Pattern.parse(pattern), impl="triton")
        expected, expected_mask = op(weight, diagonal, Pattern.parse(pattern), impl="reference")
        assert torch.equal(mask, expected_mask)
        assert torch.equal(pruned, expected) and pruned.dtype == dtype
    assert torch.equal(weight, before)


@pytest.mark.parametrize("pattern", ["2:4", "3:5", "0.5"])
@pytest.mark.parametrize("place", [(0, 0), (8, 59)])
def test_nan_is_refused(pattern, place):
    scores, pattern = scores_of(9, 60), Pattern.parse(pattern)
    scores[place] = float("nan")
    for per in ("row", "layer"):
        with pytest.raises(ValueError, match=r"select_mask: expected scores without NaN, got NaN"):
            select_mask(scores, pattern, per, impl="triton")
    with pytest.raises(ValueError, match="magnitude: expected scores without NaN"):
        magnitude(scores, pattern, impl="triton")
    scores[place] = float("inf")
    with pytest.raises(ValueError, match="wanda: expected scores without NaN"):  # inf * 0
        wanda(scores, torch.zeros(60, device=DEVICE), pattern, impl="triton")


def test_nothing_to_choose_from():
    mask = select_mask(torch.empty(0, 8, device=DEVICE), Pattern(0.5), impl="triton")
    assert mask.shape == (0, 8) and mask.dtype == torch.bool


@dtypes
@pytest.mark.parametrize("rows,columns", [pytest.param(4096, 3584, marks=gpu)])
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "5:7", "0.5", "0.9"])
def test_real_sizes(dtype, rows, columns, pattern):
    pattern = Pattern.parse(pattern)
    for ties in (False, True):
        scores = scores_of(rows, columns, dtype, ties)
        for per in ("row",) if pattern.structured else ("row", "layer", "block"):
            mask = select_mask(scores, pattern, per, impl="triton")
            assert torch.equal(mask, select_mask(scores, pattern, per, impl="reference"))
        diagonal = torch.rand(columns, device=DEVICE)
        finite = scores.nan_to_num(posinf=9, neginf=-9)
        for mine, theirs in zip(
            wanda(finite, diagonal, pattern, impl="triton"),
            wanda(finite, diagonal, pattern, impl="reference"),
            strict=True,
        ):
            assert torch.equal(mine, theirs)


@dtypes
@pytest.mark.parametrize(
    "columns", [pytest.param(c, marks=gpu) for c in (5120, 8960, 13824, 18944, 27648, 32768, 40000)]
)
def test_rows_of_real_length(dtype, columns):
    for ties in (False, True):
        scores = scores_of(512, columns, dtype, ties)
        for pattern in (Pattern(0.5), Pattern(0.37)):
            mask = select_mask(scores, pattern, impl="triton")
            assert torch.equal(mask, select_mask(scores, pattern, impl="reference"))
