"""2:4 packing on a GPU: the same bits as on the CPU."""

import pytest
import torch
from packing_truth import assert_is_torchs, bits, every_dtype, halves, shapes_of, sparse_weight

from rac_kernels import Packed2to4, mask_and_pack_2to4, native_status, pack_2to4, unpack_2to4

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.skipif(native_status()["cuda"] != "ok", reason=native_status()["cuda"]),
]
# What a layer has: 1.5B's hidden, 7B's gate and down.
LAYERS = [(1536, 1536), (18944, 3584), (3584, 18944)]


def assert_same(packed: Packed2to4, expected: Packed2to4) -> None:
    assert torch.equal(bits(packed.values.cpu()), bits(expected.values))
    assert torch.equal(packed.metadata.cpu(), expected.metadata)


@every_dtype
def test_packing_is_torchs_and_unpacking_the_way_back(dtype):
    for rows, columns in [*shapes_of(dtype), *LAYERS]:
        weight = sparse_weight(rows, columns, dtype)
        packed = pack_2to4(weight.cuda(), impl="native")
        assert_is_torchs(packed.to("cpu"), weight)
        dense = unpack_2to4(packed, impl="native")
        expected = unpack_2to4(packed, impl="reference")
        assert torch.equal(bits(dense), bits(expected))


@every_dtype
def test_weights_that_are_not_on_16_bytes_or_contiguous(dtype):
    whole = sparse_weight(66, 256, dtype).cuda()
    odd = torch.empty(33 * 128 + 1, dtype=dtype, device="cuda")[1:].view(33, 128)
    odd.copy_(whole[:33, :128])
    assert odd.data_ptr() % 16
    for weight in (whole[::2], whole[:, 64:192], whole[:, 4:68], odd, whole[:0]):
        assert_is_torchs(pack_2to4(weight, impl="native").to("cpu"), weight.cpu())


@every_dtype
def test_the_first_that_is_refused_is_named(dtype):
    weight = sparse_weight(700, 1088, dtype).cuda()
    packed = pack_2to4(weight, impl="native")
    for row, column in ((699, 1084), (400, 128), (400, 60), (3, 64)):
        weight[row, column : column + 3] = torch.ones(3).to(dtype)
        where = f"more in row {row}, columns {column} to {column + 3}"
        with pytest.raises(ValueError, match=f"pack_2to4: expected at most two .* got {where}$"):
            pack_2to4(weight, impl="native")
    for row in (320, 0):
        packed.metadata.view(-1)[2 * row] &= ~0xF
        with pytest.raises(ValueError, match=f"unpack_2to4: .* corrupted metadata in row {row}$"):
            unpack_2to4(packed, impl="native")


@halves
@pytest.mark.parametrize("scaled", [False, True])
def test_mask_and_pack_is_the_references(dtype, scaled):
    for rows, columns in [*shapes_of(dtype), *LAYERS]:
        generator = torch.Generator().manual_seed(columns)
        weight = torch.randn(rows, columns, generator=generator)
        weight[::2] = (weight[::2] * 2).round() / 2  # ties
        weight = weight.to(dtype)
        weight.view(torch.int16).view(-1)[3::11] = 3  # subnormal
        diagonal = torch.rand(columns, generator=generator) + 0.1 if scaled else None
        packed = mask_and_pack_2to4(
            weight.cuda(), None if diagonal is None else diagonal.cuda(), impl="native"
        )
        assert_same(packed, mask_and_pack_2to4(weight, diagonal, impl="reference"))
        weight[rows // 2, columns - 3] = float("nan")
        where = f"NaN in row {rows // 2}, columns {columns - 4} to {columns - 1}"
        with pytest.raises(ValueError, match=f"mask_and_pack_2to4: expected .* got {where}$"):
            mask_and_pack_2to4(weight.cuda(), impl="native")


def test_auto_is_native_and_runs_on_the_current_stream():
    weight = sparse_weight(4096, 4096, torch.bfloat16)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        on_device = torch.zeros(4096, 4096, dtype=torch.bfloat16, device="cuda")
        torch.cuda._sleep(10_000_000)
        on_device.copy_(weight)
        packed = pack_2to4(on_device)
        dense = unpack_2to4(packed)
    side.synchronize()
    assert_is_torchs(packed.to("cpu"), weight)
    assert torch.equal(bits(dense.cpu()), bits(unpack_2to4(packed.to("cpu"))))
