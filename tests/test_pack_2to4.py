"""pack_2to4 and unpack_2to4 against torch's own conversion, bit for bit."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_truth import (
    DTYPES,
    HALVES,
    assert_is_torchs,
    bits,
    built,
    every_dtype,
    every_way,
    impl,  # noqa: F401
    shapes_of,
    sparse_weight,
)

from rac_kernels import _native, pack_2to4, unpack_2to4


def zeroed(weight):
    """The weight with +0.0 for -0.0: what a round trip gives."""
    of_bits = bits(weight)
    return of_bits if weight.dtype == torch.int8 else of_bits.masked_fill(weight.float() == 0, 0)


@every_way
@every_dtype
def test_packing_is_torchs_and_unpacking_the_way_back(impl, dtype):  # noqa: F811
    for rows, columns in shapes_of(dtype):
        weight = sparse_weight(rows, columns, dtype)
        packed = pack_2to4(weight, impl=impl)
        assert_is_torchs(packed, weight)
        dense = unpack_2to4(packed, impl=impl)
        assert dense.dtype == dtype and dense.shape == weight.shape
        assert torch.equal(bits(dense), zeroed(weight))


@every_way
@every_dtype
def test_every_pair_of_groups(impl, dtype):  # noqa: F811
    """All 11 x 11 masks of two neighbours, so that every byte of metadata is met in every place."""
    masks = [m for m in itertools.product((0, 1), repeat=4) if sum(m) <= 2]
    pairs = torch.tensor([a + b for a in masks for b in masks])  # [121, 8]
    rows = torch.cat([pairs.roll(shift, 0) for shift in range(16)], dim=1)  # [121, 128]
    weight = (rows * torch.arange(1, 129)).to(dtype)
    packed = pack_2to4(weight, impl=impl)
    assert_is_torchs(packed, weight)
    assert torch.equal(bits(unpack_2to4(packed, impl=impl)), bits(weight))


def test_hand_computed():
    weight = torch.zeros(1, 32, dtype=torch.bfloat16)
    weight[0, :8] = torch.tensor([0.0, 5.0, 0.0, -2.0, -0.0, 0.0, 3.0, 0.0])
    packed = pack_2to4(weight)
    assert packed.values.shape == (32, 16) and packed.metadata.shape == (32, 2)
    # positions 1, 3 and then, of the lone value at 2, 2 and 3
    assert packed.values[0, :4].tolist() == [5.0, -2.0, 3.0, 0.0]
    assert packed.values[1:].count_nonzero() == 0
    assert packed.metadata.view(-1)[0].item() & 0xFFFF == 0xEEED
    assert (packed.metadata.view(-1)[1:] == 0xEEEE - 2**16).all()
    assert packed.nbytes == 32 * 32 * 9 // 8


@every_way
@every_dtype
def test_the_first_group_that_is_not_2to4_is_named(impl, dtype):  # noqa: F811
    weight = sparse_weight(70, 192, dtype)
    for row, column in ((69, 188), (40, 128), (40, 60), (3, 64)):  # each before the last
        count = 3 + row % 2
        weight[row, column + 4 - count : column + 4] = torch.ones(count).to(dtype)
        where = f"more in row {row}, columns {column} to {column + 3}"
        with pytest.raises(ValueError, match=f"pack_2to4: expected at most two .* got {where}$"):
            pack_2to4(weight, impl=impl)


@every_way
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_nan_counts_and_negative_zero_does_not(impl, dtype):  # noqa: F811
    weight = torch.zeros(2, 64)
    weight[0, :4] = torch.tensor([-0.0, 1.0, -0.0, 2.0])
    weight[1, 4:8] = torch.tensor([float("nan"), -0.0, float("nan"), 0.0])
    dense = unpack_2to4(pack_2to4(weight.to(dtype), impl=impl), impl=impl).float()
    assert dense[0, :4].tolist() == [0.0, 1.0, 0.0, 2.0] and not dense[0].signbit().any()
    assert dense[1, 4:8].isnan().tolist() == [True, False, True, False]
    weight[1, 5] = float("nan")
    with pytest.raises(ValueError, match="more in row 1, columns 4 to 7"):
        pack_2to4(weight.to(dtype), impl=impl)


@every_way
@every_dtype
def test_weights_that_are_not_contiguous(impl, dtype):  # noqa: F811
    whole = sparse_weight(66, 256, dtype)
    for weight in (whole[::2], whole[:, 64:192], whole[1:, 4:68], bits(whole).mT.contiguous().mT):
        weight = weight.view(dtype) if weight.dtype != dtype else weight
        assert not weight.is_contiguous()
        assert_is_torchs(pack_2to4(weight, impl=impl), weight)
    before = bits(whole).clone()
    pack_2to4(whole, impl=impl)
    assert torch.equal(bits(whole), before)


@every_way
@every_dtype
def test_no_rows(impl, dtype):  # noqa: F811
    packed = pack_2to4(torch.zeros(0, 64).to(dtype), impl=impl)
    assert packed.shape == (0, 64) and packed.nbytes == 0
    assert unpack_2to4(packed, impl=impl).shape == (0, 64)


@built
@every_dtype
def test_threads_change_nothing(dtype):
    weight = sparse_weight(300, 1088, dtype)  # more than _native packs in one thread
    bad = weight.clone()
    for row in (299, 130, 97):
        bad[row, 8:12] = torch.ones(4).to(dtype)
    torch.set_num_threads(3)
    try:
        packed = pack_2to4(weight, impl="native")
        dense = unpack_2to4(packed, impl="native")
        with pytest.raises(ValueError, match="more in row 97, columns 8 to 11"):
            pack_2to4(bad, impl="native")
    finally:
        torch.set_num_threads(1)
    assert_is_torchs(packed, weight)
    assert torch.equal(bits(dense), zeroed(weight))


@built
@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    rows=st.integers(1, 80),
    tiles=st.integers(1, 9),
    seed=st.integers(0, 2**30),
)
def test_any_shape_and_any_bits(dtype, rows, tiles, seed):
    columns = tiles * (32 if dtype in HALVES else 64)
    weight = sparse_weight(rows, columns, dtype, seed)
    packed = pack_2to4(weight, impl="native")
    assert_is_torchs(packed, weight)
    assert torch.equal(bits(unpack_2to4(packed, impl="native")), zeroed(weight))


@built
def test_auto_chooses_native(monkeypatch):
    called = []
    for name in ("pack_2to4", "unpack_2to4"):
        original = getattr(_native, name)
        monkeypatch.setattr(
            _native, name, lambda *a, f=original, **k: called.append(f.__name__) or f(*a, **k)
        )
    unpack_2to4(pack_2to4(sparse_weight(3, 64, torch.bfloat16)))
    assert called == ["pack_2to4", "unpack_2to4"]
