"""Packing of bitmaps: every implementation against a hand-made case and the other."""

import pytest
import torch
from numeric import native
from sparse_linear import implementation, sparse_weight

from rac_kernels import pack_bitmap, unpack_bitmap

SHAPES = [(0, 8), (3, 0), (1, 1), (2, 7), (5, 8), (4, 9), (17, 130), (700, 513)]


@implementation
def test_by_hand(impl):
    weight = torch.tensor([[0, 1, -0.0, 2, 0, 0, 0, 0, 3, 0], [0] * 10], dtype=torch.bfloat16)
    packed = pack_bitmap(weight, impl=impl)
    assert packed.bitmap.tolist() == [[0b1010, 1], [0, 0]]
    assert packed.offsets.tolist() == [0, 3, 3] and packed.shape == (2, 10)
    assert packed.values.tolist() == [1.0, 2.0, 3.0] + [0.0] * 32
    assert packed.dtype == torch.bfloat16


@native
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sparsity", ["0", "0.5", "1"])
def test_native_is_the_reference_bit_for_bit(dtype, shape, sparsity):
    weight = sparse_weight(*shape, dtype, sparsity)
    if weight.numel() > 8:
        weight.view(-1)[1:4] = torch.tensor([-0.0, float("nan"), -float("inf")])
    packed, expected = (pack_bitmap(weight, impl=impl) for impl in ("native", "reference"))
    assert torch.equal(packed.bitmap, expected.bitmap)
    assert torch.equal(packed.offsets, expected.offsets)
    assert torch.equal(packed.values.view(torch.int16), expected.values.view(torch.int16))
    dense = unpack_bitmap(packed, impl="native")
    zeroed = weight.masked_fill(weight == 0, 0)  # -0.0 is 0
    assert torch.equal(dense.view(torch.int16), zeroed.view(torch.int16))
    reference = unpack_bitmap(packed, impl="reference")
    assert torch.equal(dense.view(torch.int16), reference.view(torch.int16))


@implementation
def test_strides(impl):
    weight = sparse_weight(30, 40, pattern="0.5")
    for view in (weight.mT, weight[:, ::2], weight[::2, 3:21], weight[:1].expand(4, -1)):
        assert torch.equal(unpack_bitmap(pack_bitmap(view, impl=impl), impl=impl), view)


@native
def test_threads_change_nothing():
    weight = sparse_weight(700, 513, pattern="0.5")
    one = pack_bitmap(weight, impl="native")
    torch.set_num_threads(3)
    try:
        three = pack_bitmap(weight, impl="native")
        assert torch.equal(unpack_bitmap(three, impl="native"), weight)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one.values, three.values) and torch.equal(one.bitmap, three.bitmap)


def test_refusals():
    with pytest.raises(TypeError, match="pack_bitmap: expected weight in bfloat16, float16, got"):
        pack_bitmap(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="pack_bitmap: expected weight with 2 dimensions"):
        pack_bitmap(torch.zeros(8, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="pack_bitmap: impl='triton' does not exist for this op"):
        pack_bitmap(torch.zeros(2, 8, dtype=torch.bfloat16), impl="triton")
