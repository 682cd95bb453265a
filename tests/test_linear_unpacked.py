"""Packed weights and many tokens: unpacked a part at a time for torch's product of bf16."""

import pytest
import torch
from instruction_sets import using
from numeric import native
from sparse_linear import assert_is_product, inputs, sparse_weight
from torch.nn.functional import linear

from rac_kernels import linear_2to4, linear_bitmap, pack_2to4, pack_bitmap
from rac_kernels._native import linear as native_linear

pytestmark = native


def scattered_weight(rows, columns):
    weight = inputs(rows, columns, dtype=torch.bfloat16)
    return weight * (inputs(rows, columns, seed=3) > 0)


TOKENS = native_linear._MANY_TOKENS
KINDS = {
    "2:4": (sparse_weight, pack_2to4, linear_2to4),
    "bitmap": (scattered_weight, pack_bitmap, linear_bitmap),
}


@pytest.fixture
def multiplied(monkeypatch):
    """Rows of the weights that torch multiplies with."""
    seen = []

    def counted(x, weight, bias):
        seen.append(len(weight))
        return linear(x, weight, bias)

    monkeypatch.setattr(native_linear, "linear", counted)
    monkeypatch.setattr(native_linear, "_UNPACKED_BYTES", 0)  # the least, 256 rows
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 32), (255, 96), (256, 64), (515, 224)])
def test_parts_of_any_size(kind, shape, multiplied):
    make, pack, multiply = KINDS[kind]
    weight, bias = make(*shape), 100 * inputs(shape[0], dtype=torch.bfloat16, seed=2)
    x = inputs(2, TOKENS // 2, shape[1], dtype=torch.bfloat16)
    with using("amx"):
        y = multiply(x, pack(weight), bias)
    assert sum(multiplied) == shape[0] and len(multiplied) == -(-shape[0] // 256)
    assert_is_product(y, x, weight, bias=bias)


@pytest.mark.parametrize("kind", KINDS)
def test_only_many_tokens_in_bf16_with_amx(kind, multiplied):
    make, pack, multiply = KINDS[kind]
    packed, halves = pack(make(32, 64)), pack(make(32, 64).half())
    x = inputs(TOKENS, 64, dtype=torch.bfloat16)
    with using("amx"):
        multiply(x[1:], packed)
        multiply(x.float(), packed)
        multiply(x, halves)
        multiply(x, packed, inputs(32))  # a float32 bias would be rounded before it is added
    with using("avx2"):
        multiply(x, packed)
    assert not multiplied
