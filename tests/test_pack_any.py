"""Weights of any bits, 2:4 or not: packed as torch does, or refused where a plain loop says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric import implementation
from packing_truth import assert_is_torchs, bits

from rac_kernels import (
    Pattern,
    magnitude,
    mask_and_pack_2to4,
    pack_2to4,
    pack_bitmap,
    unpack_2to4,
    unpack_bitmap,
)


@st.composite
def weights(draw, dtypes, columns, zeros):
    """[1 to 5, C] of any bits, `zeros` of ten values 0 or -0.0."""
    dtype = draw(st.sampled_from(dtypes))
    rows, size = draw(st.integers(1, 5)), dtype.itemsize
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = rows, draw(columns)
    low, high = -(2 ** (8 * size - 1)), 2 ** (8 * size - 1)
    raw = torch.randint(low, high, shape, generator=generator)
    kind = torch.randint(0, 10, shape, generator=generator)
    share = draw(zeros)
    zero = low if dtype != torch.int8 and draw(st.booleans()) else 0
    raw = torch.where(kind < share, zero, raw).to(torch.int16 if size == 2 else torch.int8)
    return raw.view(dtype)


def first_dense_group(weight):
    for row, values in enumerate((weight.float() != 0).tolist()):
        for column in range(0, len(values), 4):
            if sum(values[column : column + 4]) > 2:
                return row, column
    return None


def without_sign(weight):
    """The bits, with 0.0 for -0.0."""
    of_bits = bits(weight)
    return of_bits if weight.dtype == torch.int8 else of_bits.masked_fill(weight.float() == 0, 0)


EVERY = [torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn]
HALVES = EVERY[:2]


@implementation
@settings(max_examples=60, deadline=None)
@given(weight=weights(EVERY, st.sampled_from([64, 128]), st.integers(7, 10)))
def test_2to4_or_refused_at_the_first_group(impl, weight):
    found = first_dense_group(weight)
    if found is None:
        packed = pack_2to4(weight, impl=impl)
        assert_is_torchs(packed, weight)
        assert torch.equal(bits(unpack_2to4(packed, impl=impl)), without_sign(weight))
        return
    row, column = found
    with pytest.raises(ValueError, match=f"more in row {row}, columns {column} to {column + 3}$"):
        pack_2to4(weight, impl=impl)


@implementation
@settings(max_examples=40, deadline=None)
@given(weight=weights(HALVES, st.sampled_from([32, 96]), st.integers(0, 10)))
def test_pruned_and_packed_or_refused_at_the_first_nan(impl, weight):
    nan = weight.isnan().nonzero()
    if len(nan):
        row, column = nan[0].tolist()
        column -= column % 4
        with pytest.raises(ValueError, match=f"NaN in row {row}, columns {column} to {column + 3}"):
            mask_and_pack_2to4(weight, impl=impl)
        weight = weight.nan_to_num(0.0, torch.inf, -torch.inf)
    pruned, _ = magnitude(weight, Pattern.parse("2:4"), impl="reference")
    assert_is_torchs(mask_and_pack_2to4(weight, impl=impl), pruned)


@implementation
@settings(max_examples=60, deadline=None)
@given(weight=weights(HALVES, st.integers(0, 40), st.integers(0, 10)))
def test_bitmaps_there_and_back(impl, weight):
    packed = pack_bitmap(weight, impl=impl)
    assert torch.equal(bits(unpack_bitmap(packed, impl=impl)), without_sign(weight))
    of_rows = [[j for j, w in enumerate(row) if w != 0] for row in weight.float().tolist()]
    counts = packed.offsets.diff().tolist()
    assert counts == [len(kept) for kept in of_rows]
    for row, kept in enumerate(of_rows):
        number = int.from_bytes(bytes(packed.bitmap[row].tolist()), "little")
        assert number == sum(1 << j for j in kept)
