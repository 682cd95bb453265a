"""Packed weights whose parts no packing makes: refused before a kernel reads where they point."""

import dataclasses
import inspect

import pytest
import torch
from numeric import native
from sparse_linear import assert_is_product, implementation, inputs, sparse_weight

from rac_kernels import (
    linear_2to4,
    linear_2to4_fp8,
    linear_bitmap,
    linear_dense,
    pack_2to4,
    pack_bitmap,
    unpack_2to4,
    unpack_bitmap,
)

ROWS, COLUMNS = 40, 70


def fresh(dtype=torch.bfloat16):
    """A 2:4 weight [40, 64]; in fp8 with a scale."""
    weight = sparse_weight(ROWS, 64, dtype)
    return pack_2to4(weight, scale=torch.ones(ROWS) if dtype.itemsize == 1 else None)


def changed(tensor, place, value):
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


def cut(part, *where):
    return lambda packed: {part: getattr(packed, part)[where]}


# What is wrong -> the parts that replace those of a packed weight, and what is said.
DAMAGED_2TO4 = {
    "rows": (lambda p: {"rows": 5_000_000}, r"rows that are padded to \d+, got 5000000"),
    "rows of no integer": (lambda p: {"rows": 40.0}, "an integer for rows, got float 40.0"),
    "zeros": (
        lambda p: {"metadata": torch.zeros_like(p.metadata)},
        "two ascending positions in every group, got corrupted metadata in row 0",
    ),
    "one nibble": (
        lambda p: {"metadata": changed(p.metadata, (-1, 0), p.metadata[-1, 0] & ~0xF0 | 0x50)},
        "two ascending positions in every group, got corrupted metadata in row ",
    ),
    "one row": (cut("metadata", slice(0, 1)), r"metadata \[\d+, \d\], got \[1, \d\]"),
    "values": (lambda p: {"values": [0.0]}, "a tensor for values, got list"),
    "meta": (lambda p: {"values": p.values.to("meta")}, "values with data, got a tensor on the me"),
    "scale's length": (lambda p: {"scale": torch.ones(39)}, r"scale float32 \[40\], got"),
    "scale's dtype": (lambda p: {"scale": torch.ones(40).half()}, "got torch.float16"),
    "scale": (lambda p: {"scale": [1.0] * 40}, "a tensor for scale, got list"),
    "NaN": (
        lambda p: {"scale": changed(torch.ones(40), 7, torch.nan)},
        "scale without NaN, got NaN in row 7",
    ),
}
DAMAGED_BITMAP = {
    "offsets beyond": (
        lambda p: {"offsets": p.offsets + 10**12},
        "offsets that begin at 0, got 1000000000000",
    ),
    "far": (
        lambda p: {"offsets": changed(p.offsets, 40, 10**12)},
        "apart in row 39, as its bitmap has bits, got ",
    ),
    "descending": (lambda p: {"offsets": changed(p.offsets, 9, -8)}, "apart in row 8, as"),
    "short": (cut("offsets", slice(0, 40)), r"offsets \[41\] for 40 rows, got \[40\]"),
    "int32": (lambda p: {"offsets": p.offsets.int()}, "offsets in int64, got torch.int32"),
    "columns": (lambda p: {"columns": 640}, r"a bitmap \[40, 80\] for 640 columns, got \[40, 9\]"),
    "negative": (lambda p: {"columns": -70}, r"a bitmap \[40, -8\] for -70 columns, got \[40, 9\]"),
    "fewer columns": (
        lambda p: {"columns": 65},
        "without bits beyond column 65, got some",
    ),
    "bits": (
        lambda p: {"bitmap": changed(p.bitmap, (17, 3), p.bitmap[17, 3] ^ 16)},
        "apart in row 17, as its bitmap has bits",
    ),
    "int8": (lambda p: {"bitmap": p.bitmap.char()}, "bitmap in uint8, got torch.int8"),
    "values cut": (cut("values", slice(0, -1)), r"32 more than the bitmap has bits, got \["),
    "float32": (
        lambda p: {"values": p.values.float()},
        "values in bfloat16, float16, got to",
    ),
    "matrix": (lambda p: {"values": p.values[None]}, "values with 1 dimension"),
}


def assert_refused(op, arguments, packed, change, message):
    with pytest.raises((ValueError, TypeError), match=f"^{op.__name__}: expected .*{message}"):
        op(*arguments, dataclasses.replace(packed, **change(packed)))


@pytest.mark.parametrize("case", DAMAGED_2TO4)
def test_damaged_2to4(case):
    change, message = DAMAGED_2TO4[case]
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        packed = fresh(dtype)
        assert_refused(linear_2to4, [inputs(2, 64)], packed, change, message)
        if case != "NaN":  # unpacking leaves the scale out
            assert_refused(unpack_2to4, [], packed, change, message)
    assert_refused(linear_2to4_fp8, [inputs(2, 64)], packed, change, message)


@pytest.mark.parametrize("case", DAMAGED_BITMAP)
def test_damaged_bitmaps(case):
    packed = pack_bitmap(sparse_weight(ROWS, COLUMNS, pattern="0.5"))
    change, message = DAMAGED_BITMAP[case]
    columns = change(packed).get("columns", COLUMNS)
    assert_refused(linear_bitmap, [inputs(2, abs(columns))], packed, change, message)
    assert_refused(unpack_bitmap, [], packed, change, message)


def test_scales_are_refused_when_packed():
    weight = sparse_weight(4, 64, torch.int8)
    for scale, error, message in (
        (torch.tensor([1, 2, torch.nan, 4]), ValueError, "scale without NaN, got NaN in row 2"),
        ([1.0] * 4, TypeError, "a tensor for scale, got list"),
    ):
        with pytest.raises(error, match=f"pack_2to4: expected {message}"):
            pack_2to4(weight, scale=scale)


def test_every_count_of_ones_in_a_byte():
    """The refusal counts bits by adding pairs: each byte beside Python's count."""
    for byte in range(256):
        weight = torch.tensor([[byte >> i & 1 for i in range(8)]], dtype=torch.bfloat16)
        packed = pack_bitmap(weight)
        assert packed.bitmap.item() == byte and int(packed.offsets[1]) == byte.bit_count()
        assert torch.equal(unpack_bitmap(packed), weight)
        with pytest.raises(ValueError, match=f"expected offsets {byte.bit_count()} apart in row 0"):
            unpack_bitmap(
                dataclasses.replace(packed, offsets=packed.offsets + torch.tensor([0, 1]))
            )


@implementation
@pytest.mark.parametrize("part", ["values", "metadata", "scale"])
def test_parts_of_a_2to4_weight_may_have_strides(impl, part):
    weight = sparse_weight(ROWS, 64, torch.int8)
    packed = pack_2to4(weight, scale=torch.rand(ROWS) + 0.5)
    strided = dataclasses.replace(packed, **{part: spread(getattr(packed, part))})
    x = inputs(3, 64)
    assert_is_product(linear_2to4(x, strided, impl=impl), x, weight, packed.scale)
    assert torch.equal(unpack_2to4(strided, impl=impl), weight)


@implementation
@pytest.mark.parametrize("part", ["values", "bitmap", "offsets"])
def test_parts_of_a_bitmap_may_have_strides(impl, part):
    weight = sparse_weight(ROWS, COLUMNS, pattern="0.5")
    packed = pack_bitmap(weight)
    strided = dataclasses.replace(packed, **{part: spread(getattr(packed, part))})
    x = inputs(3, COLUMNS)
    assert_is_product(linear_bitmap(x, strided, impl=impl), x, weight)
    assert torch.equal(unpack_bitmap(strided, impl=impl), weight)


def spread(tensor):
    """The same values, every other element of a larger tensor."""
    strided = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1])[..., ::2]
    return strided.copy_(tensor)


@native
def test_a_weight_is_looked_at_once(monkeypatch):
    """So its later products pay nothing; a copy with another part is looked at again."""
    from rac_kernels import _linear_checks

    counted = []
    for name in ("check_parts_2to4", "check_parts_bitmap"):
        check = getattr(_linear_checks, name)
        monkeypatch.setattr(
            _linear_checks, name, lambda *given, check=check: counted.append(check(*given))
        )
    for op, packed, columns in (
        (linear_2to4, fresh(), 64),
        (linear_bitmap, pack_bitmap(sparse_weight(ROWS, 64)), 64),
    ):
        for _ in range(3):
            op(inputs(2, columns), packed)
        assert len(counted) == 1
        op(inputs(2, columns), dataclasses.replace(packed))
        assert len(counted) == 2
        counted.clear()


def test_other_arguments_are_named():
    x, packed = inputs(2, 64), fresh(torch.float8_e4m3fn)
    bitmap = pack_bitmap(sparse_weight(ROWS, 64, pattern="0.5"))
    dense = torch.zeros(ROWS, 64)
    for op, fits, other, kind in (
        (linear_2to4, packed, bitmap, "a Packed2to4 from pack_2to4"),
        (linear_2to4_fp8, packed, bitmap, "a Packed2to4 from pack_2to4"),
        (linear_bitmap, bitmap, packed, "a PackedBitmap from pack_bitmap"),
        (linear_dense, dense, packed, "a tensor for weight"),
    ):
        with pytest.raises(TypeError, match=f"{op.__name__}: expected {kind}, got Packed"):
            op(x, other)
        if op is not linear_dense:
            with pytest.raises(TypeError, match=f"{op.__name__}: expected {kind}, got Tensor"):
                op(x, dense)
        assert "bias" in inspect.signature(op).parameters
        with pytest.raises(TypeError, match="expected a tensor or None for bias, got list"):
            op(x, fits, [0.0] * ROWS)
    with pytest.raises(TypeError, match="unpack_bitmap: expected a PackedBitmap from .*got Tensor"):
        unpack_bitmap(dense)
