"""The k-th smallest against a sort, on lists shorter and longer than where the method changes."""

import pytest
import torch

from rac_kernels.reference.kth_value import LONG, kth_value


def cases(size):
    generator = torch.Generator().manual_seed(size)
    random = torch.randn(1, size, generator=generator)
    yield "random", random
    yield "positive", random.abs()
    yield "negative", -random.abs()
    yield "many ties", (random * 2).round()
    yield "equal", torch.full((1, size), -3.5)
    yield "zeros of both signs", torch.where(random > 1, random, random.sign() * 0)
    yield "tiny and huge", random.sign() * torch.exp(25 * random).clamp(1e-42, 3e38)
    yield "infinite", torch.where(random.abs() > 1, random * float("inf"), random)


@pytest.mark.parametrize("size", [1, 7, LONG - 1, LONG, 3 * LONG + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equals_a_sort(size, dtype):
    for name, scores in cases(size):
        scores = scores.to(dtype)
        order = scores.sort(dim=1).values
        for k in {1, (size + 1) // 2, max(1, size - 1), size}:
            value = kth_value(scores, k)
            assert value.dtype == dtype and value.shape == (1, 1)
            assert float(value) == float(order[0, k - 1]), (name, k)


def test_rows_and_strides():
    scores = torch.randn(3, 2 * LONG, generator=torch.Generator().manual_seed(0))
    expected = scores.sort(dim=1).values[:, LONG - 1 : LONG]
    assert torch.equal(kth_value(scores, LONG), expected)
    for row in range(3):
        assert torch.equal(kth_value(scores[row : row + 1], LONG), expected[row : row + 1])
    half = scores[:1, ::2]
    assert torch.equal(kth_value(half, 5), half.sort(dim=1).values[:, 4:5])
