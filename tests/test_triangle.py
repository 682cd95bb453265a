import pytest
import torch
from numeric import activations, hessian64, implementation, sum_bound

from rac_kernels import PackedTriangle, hessian_accumulate_

SIZES = [0, 1, 5, 127, 128, 129, 256, 300, 513]  # on and one off a block row of 128


def lower(features, device="cpu"):
    """1, 2, 3, ... in the lower triangle, row after row; distinct rubbish above it."""
    count = features * (features + 1) // 2
    matrix = -torch.rand(features, features, device=device) - 1
    rows, columns = torch.tril_indices(features, features, device=device)
    matrix[rows, columns] = torch.arange(1, count + 1, device=device, dtype=torch.float32)
    return matrix


@pytest.mark.parametrize("features", SIZES)
def test_pack_and_unpack_keep_the_lower_triangle(features):
    matrix = lower(features)
    packed = PackedTriangle.pack(matrix)
    assert packed.features == features and packed.device == matrix.device
    assert torch.equal(packed.unpack(), matrix.tril())
    out = torch.full((features, features), 7.0)
    assert packed.unpack(out) is out
    assert torch.equal(out, matrix.tril())
    assert torch.equal(packed.diagonal(), matrix.diagonal())


def test_layout_is_block_rows_one_after_the_other():
    """By hand: rows 0-127 hold 128 columns, 128-255 hold 256, 256-299 all 300."""
    matrix = lower(300)
    data = PackedTriangle.pack(matrix).data
    assert data.shape == (128 * 128 + 128 * 256 + 44 * 300,)
    assert data[127 * 128 + 5] == matrix[127, 5]
    assert data[128 * 128 + 256 * 2 + 9] == matrix[130, 9]
    assert data[128 * 128 + 128 * 256 + 300 * 43 + 299] == matrix[299, 299]


@pytest.mark.parametrize("features", SIZES)
def test_size(features):
    packed = PackedTriangle.zeros(features)
    assert packed.data.count_nonzero() == 0
    assert packed.nbytes == 4 * PackedTriangle.numel(features) <= 4 * features**2
    if features % 128 == 0 and features:
        assert packed.nbytes == 4 * features**2 * (0.5 + 64 / features)


def test_block_rows_are_views():
    packed = PackedTriangle.zeros(300)
    packed.block_row(1)[3, 17] = 5
    packed.block_row(2)[43, 299] = 6
    full = packed.unpack()
    assert full[131, 17] == 5 and full[299, 299] == 6 and full.count_nonzero() == 2
    assert [tuple(rows.shape) for _, _, rows in packed.block_rows()] == [
        (128, 128),
        (128, 256),
        (44, 300),
    ]


def test_copy():
    packed = PackedTriangle.pack(lower(130))
    assert torch.equal(PackedTriangle.zeros(130).copy_(packed).data, packed.data)
    with pytest.raises(ValueError, match="copy_: expected 130 features, got 131"):
        packed.copy_(PackedTriangle.zeros(131))


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="PackedTriangle: expected data in float32, got torch.int"):
        PackedTriangle(torch.zeros(16, dtype=torch.int), 4)
    with pytest.raises(TypeError, match="expected data in float32, got list"):
        PackedTriangle([0.0], 1)
    with pytest.raises(ValueError, match=r"expected contiguous data \[16\] for 4 features, got"):
        PackedTriangle(torch.zeros(4, 4), 4)
    with pytest.raises(ValueError, match=r"got \[16\] with strides \(2,\)"):
        PackedTriangle(torch.zeros(32)[::2], 4)
    with pytest.raises(ValueError, match="expected features >= 0, got -1"):
        PackedTriangle.zeros(-1)
    with pytest.raises(ValueError, match="block_row: expected an index of 200 features, got 2"):
        PackedTriangle.zeros(200).block_row(2)
    with pytest.raises(ValueError, match=r"pack: expected a square hessian, got \[3, 4\]"):
        PackedTriangle.pack(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"unpack: expected out \[4, 4\], got \[5, 5\]"):
        PackedTriangle.zeros(4).unpack(torch.zeros(5, 5))


@implementation
@pytest.mark.parametrize("features", [1, 127, 128, 300])
def test_a_packed_hessian_takes_the_same_sums(features, impl):
    x = activations(50, features)
    weight = torch.linspace(-1, 2, 50)
    packed = PackedTriangle.zeros(features)
    assert hessian_accumulate_(packed, x, impl=impl) is packed
    assert hessian_accumulate_(packed, x, row_weight=weight, impl=impl) is packed
    error = (packed.unpack() - (hessian64(x) + hessian64(x, weight)).tril()).abs()
    assert bool((error <= 2 * (sum_bound(x) + sum_bound(x, weight))).all())


BAD = {
    r"expected x \[..., 4\] for H \[4, 4\], got \[2, 5\]": torch.zeros(2, 5),
    "expected x in bf16, fp16 or fp32, got torch.int64": torch.zeros(2, 4, dtype=torch.long),
    "expected x with a unit last stride": torch.zeros(4, 2).mT,
    "expected all tensors on one device": torch.zeros(2, 4, device="meta"),
    "expected a tensor for x, got list": [[0.0] * 4],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_activations_leave_a_packed_hessian_alone(message):
    packed = PackedTriangle(torch.full((16,), 3.0), 4)
    with pytest.raises((ValueError, TypeError), match="^hessian_accumulate_: " + message):
        hessian_accumulate_(packed, BAD[message])
    assert bool((packed.data == 3).all())
    with pytest.raises(ValueError, match="expected hessian with data"):
        hessian_accumulate_(PackedTriangle.zeros(4, "meta"), torch.zeros(2, 4, device="meta"))
