"""On a GPU: ops whose other tests run on the CPU, and indices beyond 32 bits."""

import pytest
import torch
from numeric import layer
from triton_interpreter import INTERPRETED, sized

from rac_kernels import (
    HessianFactor,
    Pattern,
    decode_attention,
    factor_hessians,
    magnitude,
    pack_bitmap,
    select_mask,
    sparsegpt,
    sparsegpt_batch,
    symmetrize_,
    unpack_bitmap,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
HALVES = [torch.bfloat16, torch.float16]


def needs_memory(gigabytes: int):
    there = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    return pytest.mark.skipif(
        INTERPRETED or there < gigabytes << 30, reason=f"needs {gigabytes} GB of GPU memory"
    )


@pytest.mark.parametrize("size", [0, 1, 33, sized(3000, 200)])
def test_symmetrize(size):
    hessian = torch.randn(size, size + 5, device="cuda")[:, 2 : 2 + size]
    expected = hessian.cpu().double()
    expected = expected.tril() + expected.tril(-1).mT
    assert torch.equal(symmetrize_(hessian).cpu().double(), expected)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_decode_attention_is_that_of_the_cpu(dtype):
    generator = torch.Generator().manual_seed(0)
    query, keys, values, new, turn = (
        torch.randn(*shape, generator=generator).to(dtype)
        for shape in ((2, 6, 32), (2, 3, 40, 32), (2, 3, 40, 32), (2, 2, 3, 32), (2, 2, 32))
    )
    mask = torch.rand(2, 40, generator=generator) < 0.7
    found = []
    for device in ("cpu", "cuda"):
        q, k, v, n, t, m = (x.to(device) for x in (query, keys, values, new, turn, mask))
        output = decode_attention(
            q, k, v, mask=m, new=(n[0], n[1]), rotary=(t[0], t[1]), impl="reference"
        )
        found.append((output.cpu(), k.cpu(), v.cpu()))
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("rows", "columns"), [(0, 64), (1, 8), (33, 1000), (70, 4096)])
def test_bitmaps_are_those_of_the_cpu_and_come_back(dtype, rows, columns):
    generator = torch.Generator().manual_seed(rows + columns)
    weight = torch.randn(rows, columns, generator=generator)
    weight = (weight * (torch.rand(rows, columns, generator=generator) < 0.5)).to(dtype)
    for given in (weight.cuda(), torch.stack([weight, weight], 2).cuda()[..., 0]):
        packed, expected = pack_bitmap(given), pack_bitmap(weight)
        for name, tensor in vars(expected).items():
            if isinstance(tensor, torch.Tensor):
                assert torch.equal(getattr(packed, name).cpu(), tensor), name
        assert torch.equal(unpack_bitmap(packed).cpu(), weight)


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_batches_are_what_their_layers_are_alone(pattern):
    layers = [layer(rows, columns, seed=rows) for rows, columns in [(9, 72), (40, 136)]]
    factors = factor_hessians([hessian.cuda() for _, hessian in layers])
    results = sparsegpt_batch([w.cuda() for w, _ in layers], factors, Pattern.parse(pattern))
    for (weight, _), factor, (pruned, mask, _) in zip(layers, factors, results, strict=True):
        alone, its_mask, _ = sparsegpt(weight.cuda(), factor, Pattern.parse(pattern))
        assert torch.equal(mask, its_mask) and torch.equal(pruned, alone)


@needs_memory(40)
@pytest.mark.parametrize("pattern", ["2:4", "0.5"])
@pytest.mark.parametrize("dtype", HALVES)
def test_large_masks_beyond_32_bits(pattern, dtype):
    """2.3e9 scores; every row is selected by itself, so the last ones can be checked alone."""
    scores = torch.randn(640_000, 3584, device="cuda", dtype=dtype)
    mask = select_mask(scores, Pattern.parse(pattern))
    last = scores[-1000:].clone()
    assert torch.equal(mask[-1000:], select_mask(last, Pattern.parse(pattern), impl="reference"))
    del mask
    pruned, _ = magnitude(scores, Pattern.parse(pattern))
    assert torch.equal(pruned[-1000:], magnitude(last, Pattern.parse(pattern), impl="reference")[0])


@needs_memory(70)
def test_large_weights_of_sparsegpt_beyond_32_bits():
    """2.3e9 weights pruned 2:4, a row by itself: the last rows are what they are alone."""
    weight = torch.randn(2_300_000, 1000, device="cuda", dtype=torch.bfloat16)
    upper = torch.eye(1000, device="cuda") + torch.rand(1000, 1000, device="cuda").triu() / 99
    dead = torch.zeros(1000, dtype=torch.bool, device="cuda")
    factor = HessianFactor(upper.mT.contiguous().mT, 0.0, 1, dead)
    pruned, mask, _ = sparsegpt(weight, factor, Pattern.parse("2:4"), impl="triton")
    last = weight[-500:].clone()
    alone, its_mask, _ = sparsegpt(last, factor, Pattern.parse("2:4"), impl="triton")
    assert torch.equal(mask[-500:], its_mask) and torch.equal(pruned[-500:], alone)
