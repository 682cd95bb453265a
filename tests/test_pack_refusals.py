"""What packing and unpacking refuse, and in which words."""

import dataclasses

import pytest
import torch
from packing_truth import built, every_dtype, every_way, impl, sparse_weight  # noqa: F401

from rac_kernels import _choice, _native, mask_and_pack_2to4, pack_2to4, unpack_2to4


def test_weights_that_cannot_be_packed():
    half = torch.zeros(4, 64, dtype=torch.bfloat16)
    with pytest.raises(
        ValueError, match="in_features that are a multiple of 32 for bfloat16, got 48"
    ):
        pack_2to4(half[:, :48])
    with pytest.raises(ValueError, match="in_features that are a multiple of 64 for int8, got 32"):
        pack_2to4(half[:, :32].to(torch.int8))
    with pytest.raises(ValueError, match="a multiple of 32 for bfloat16, got 0"):
        pack_2to4(half[:, :0])
    with pytest.raises(TypeError, match="expected weight in bfloat16, .*got torch.float32"):
        pack_2to4(half.float())
    with pytest.raises(ValueError, match="weight with 2 dimensions, got"):
        pack_2to4(half[0])
    with pytest.raises(ValueError, match="weight with data, got a tensor on the meta device"):
        pack_2to4(half.to("meta"))
    with pytest.raises(ValueError, match=r"scale float32 \[4\], got torch.float32 \[5\]"):
        pack_2to4(half, scale=torch.ones(5))
    with pytest.raises(ValueError, match=r"impl='triton' does not exist for this op"):
        pack_2to4(half, impl="triton")


@every_way
@every_dtype
def test_corrupted_metadata_is_refused_with_its_row(impl, dtype):  # noqa: F811
    packed = pack_2to4(sparse_weight(40, 192, dtype), impl=impl)
    flat = packed.metadata.view(-1)
    for row, position in ((39, 0b0000), (17, 0b0001), (9, 0b1011), (0, 0b1111)):
        # row * 4 of 32 (of 16: * 2) and row // 8 give the word of the first column
        size = dtype.itemsize
        group, turns = (32, 4) if size == 2 else (16, 2)
        moved = row // group * group + row % 8 * turns + row % group // 8
        word = 2 * moved - moved % 2
        flat[word] = (flat[word] & ~0xF) | position
        with pytest.raises(ValueError, match=f"unpack_2to4: .* corrupted metadata in row {row}$"):
            unpack_2to4(packed, impl=impl)


def test_parts_that_do_not_fit_each_other():
    packed = pack_2to4(sparse_weight(40, 192, torch.bfloat16), scale=torch.ones(40))

    def refused(error, match, **changes):
        with pytest.raises(error, match=f"unpack_2to4: expected {match}"):
            unpack_2to4(dataclasses.replace(packed, **changes))

    refused(TypeError, "metadata in int16, got torch.int32", metadata=packed.metadata.int())
    refused(ValueError, r"metadata \[64, 12\], got \[64, 11\]", metadata=packed.metadata[:, 1:])
    refused(ValueError, r"metadata \[64, 12\], got \[32, 12\]", metadata=packed.metadata[:32])
    refused(TypeError, "values in bfloat16, .*got torch.float32", values=packed.values.float())
    refused(ValueError, r"values with rows in 32s and columns in 16s", values=packed.values[:33])
    refused(ValueError, r"values with rows in 32s and columns in 16s", values=packed.values[:, :8])
    refused(ValueError, "rows that are padded to 64, got 32", rows=32)
    refused(ValueError, "rows that are padded to 64, got 65", rows=65)
    with pytest.raises(TypeError, match="expected a Packed2to4 from pack_2to4, got Tensor"):
        unpack_2to4(packed.values)


def test_scale_is_kept_and_parts_move_together():
    weight, scale = sparse_weight(5, 64, torch.int8), torch.rand(5)
    packed = pack_2to4(weight, scale=scale)
    assert packed.scale is scale and torch.equal(unpack_2to4(packed), weight)
    moved = packed.map(torch.clone)
    assert torch.equal(moved.metadata, packed.metadata) and moved.rows == 5


def test_a_missing_module_leaves_the_reference(monkeypatch):
    weight = sparse_weight(5, 64, torch.bfloat16)
    expected = pack_2to4(weight, impl="reference")
    monkeypatch.setattr(_native.loading, "CPU", "rac_kernels._C_nowhere")
    _choice._missing.cache_clear()
    try:
        assert torch.equal(pack_2to4(weight).metadata, expected.metadata)
        for op, given in (
            (pack_2to4, weight),
            (mask_and_pack_2to4, weight),
            (unpack_2to4, expected),
        ):
            with pytest.raises(ValueError, match=f"{op.__name__}: impl='native' cannot run: "):
                op(given, impl="native")
    finally:
        _choice._missing.cache_clear()


@built
def test_the_module_refuses_what_would_corrupt_memory():
    module = _native.load(_native.CPU)
    sizes = {"rows": 4, "columns": 64, "padded": 32, "value": 0, "threads": 1}
    for changes in ({"columns": 48}, {"padded": 33}, {"rows": 40}, {"value": 4}, {"threads": 0}):
        with pytest.raises(ValueError, match="packing: "):
            module.unpack_2to4(values=0, metadata=0, weight=0, **sizes | changes)
