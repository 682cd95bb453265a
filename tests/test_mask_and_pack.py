"""mask_and_pack_2to4 against a stable sort of each group, and against masking before packing."""

import pytest
import torch
from numeric import lowest
from packing_truth import (
    HALF_SHAPES,
    SHAPES,
    assert_is_torchs,
    bits,
    built,
    every_way,
    halves,
    impl,  # noqa: F401
)

from rac_kernels import Pattern, magnitude, mask_and_pack_2to4, pack_2to4, unpack_2to4, wanda

TWO_FOUR = Pattern.parse("2:4")


def weight_of(rows, columns, dtype, ties):
    """Dense weights; with ties, few values, both zeros, subnormals and infinities."""
    generator = torch.Generator().manual_seed(1000 * rows + columns)
    weight = torch.randn(rows, columns, generator=generator)
    if ties:
        weight = (weight * 2).round() / 2
        weight.view(-1)[::7] = float("inf")
        weight.view(-1)[5::13] = -0.0
    weight = weight.to(dtype)
    if ties:
        weight.view(torch.int16).view(-1)[3::11] = 3  # subnormal
        weight.view(torch.int16).view(-1)[4::17] = 0x0400
    return weight


def diagonal_of(columns):
    """Scales over ten decades: float32 products that overflow, and that are subnormal."""
    generator = torch.Generator().manual_seed(columns)
    return 10 ** (20 * torch.rand(columns, generator=generator) - 10)


@every_way
@halves
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_two_highest_by_a_stable_sort_are_packed(impl, dtype, ties, scaled):  # noqa: F811
    for rows, columns in SHAPES + HALF_SHAPES:
        weight = weight_of(rows, columns, dtype, ties)
        diagonal = diagonal_of(columns) if scaled else None
        scores = weight.float().abs()
        if scaled:
            scores = scores * diagonal.sqrt()
        keep = ~lowest(scores.view(-1, 4), 2).view_as(scores)
        before = weight.clone()
        packed = mask_and_pack_2to4(weight, diagonal, impl=impl)
        assert_is_torchs(packed, torch.where(keep, weight, torch.zeros((), dtype=dtype)))
        assert torch.equal(bits(weight), bits(before))


@every_way
@halves
def test_equal_to_masking_and_packing(impl, dtype):  # noqa: F811
    weight, diagonal = weight_of(70, 320, dtype, True), diagonal_of(320)
    for packed, pruned in (
        (mask_and_pack_2to4(weight, impl=impl), magnitude(weight, TWO_FOUR)[0]),
        (mask_and_pack_2to4(weight, diagonal, impl=impl), wanda(weight, diagonal, TWO_FOUR)[0]),
    ):
        expected = pack_2to4(pruned, impl="reference")
        assert torch.equal(bits(packed.values), bits(expected.values))
        assert torch.equal(packed.metadata, expected.metadata)
        assert torch.equal(unpack_2to4(packed, impl=impl), pruned)


@every_way
def test_ties_prune_the_lowest_index(impl):  # noqa: F811
    weight = torch.zeros(1, 32, dtype=torch.float16)
    weight[0, :12] = torch.tensor([1, -1, 1, 1, 2, 1, 1, -2, 3, 1, 1, 1.0])
    dense = unpack_2to4(mask_and_pack_2to4(weight, impl=impl))[0, :12]
    assert dense.tolist() == [0, 0, 1, 1, 2, 0, 0, -2, 3, 0, 0, 1.0]


@every_way
@halves
def test_every_order_of_four(impl, dtype):  # noqa: F811
    """All 256 groups of the values 1 to 4, ties among them, in every place of a block."""
    groups = torch.cartesian_prod(*[torch.arange(1, 5)] * 4)  # [256, 4]
    weight = torch.cat([groups.roll(shift, 0) for shift in range(16)], 1).to(dtype)
    weight[::2] = -weight[::2]
    keep = ~lowest(weight.float().abs().view(-1, 4), 2).view_as(weight)
    for diagonal in (None, torch.full((64,), 0.25)):
        dense = unpack_2to4(mask_and_pack_2to4(weight, diagonal, impl=impl))
        assert torch.equal(dense, weight * keep)


@every_way
@halves
@pytest.mark.parametrize("scaled", [False, True])
def test_nan_is_refused_with_its_place(impl, dtype, scaled):  # noqa: F811
    weight = weight_of(70, 96, dtype, False)
    diagonal = torch.ones(96) if scaled else None
    for row, column in ((69, 95), (40, 33), (2, 64)):
        weight[row, column] = float("nan")
        where = f"NaN in row {row}, columns {column // 4 * 4} to {column // 4 * 4 + 3}"
        with pytest.raises(ValueError, match=f"mask_and_pack_2to4: expected .* got {where}$"):
            mask_and_pack_2to4(weight, diagonal, impl=impl)


@every_way
def test_a_product_that_is_nan_is_refused(impl):  # noqa: F811
    weight, diagonal = torch.ones(3, 32, dtype=torch.bfloat16), torch.ones(32)
    weight[1, 9] = float("inf")
    mask_and_pack_2to4(weight, diagonal, impl=impl)
    diagonal[9] = 0
    with pytest.raises(ValueError, match="NaN in row 1, columns 8 to 11"):
        mask_and_pack_2to4(weight, diagonal, impl=impl)


@every_way
def test_rows_apart_and_none(impl):  # noqa: F811
    whole = weight_of(66, 192, torch.bfloat16, True)
    for weight in (whole[::2], whole[:, 32:128], whole.mT.contiguous().mT, whole[:0]):
        packed = mask_and_pack_2to4(weight, impl=impl)
        assert_is_torchs(packed, magnitude(weight, TWO_FOUR)[0])


@built
def test_threads_change_nothing():
    weight, diagonal = weight_of(300, 1088, torch.bfloat16, True), diagonal_of(1088)
    one = mask_and_pack_2to4(weight, diagonal, impl="native")
    torch.set_num_threads(3)
    try:
        three = mask_and_pack_2to4(weight, diagonal, impl="native")
    finally:
        torch.set_num_threads(1)
    assert torch.equal(bits(one.values), bits(three.values))
    assert torch.equal(one.metadata, three.metadata)


def test_bad_input_is_named():
    weight = torch.zeros(4, 64, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="expected weight in bfloat16, float16, got torch.int8"):
        mask_and_pack_2to4(weight.to(torch.int8))
    with pytest.raises(ValueError, match="a multiple of 32 for bfloat16, got 40"):
        mask_and_pack_2to4(weight[:, :40])
    with pytest.raises(ValueError, match=r"expected hessian_diagonal \[64\], got \[63\]"):
        mask_and_pack_2to4(weight, torch.ones(63))
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="mask_and_pack_2to4: expected a finite hessian_diag"):
            mask_and_pack_2to4(weight, torch.full((64,), bad))
