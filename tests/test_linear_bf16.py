"""Linears of x in bf16, whose pairs or tiles some CPUs multiply, on every instruction set."""

import pytest
import torch
from instruction_sets import every_bf16_set
from numeric import native
from sparse_linear import assert_is_product, inputs, sparse_weight

from rac_kernels import linear_2to4, linear_bitmap, linear_dense, pack_2to4, pack_bitmap

pytestmark = native
TOKENS = (1, 2, 3, 5, 8, 17, 33, 70)  # pairs of 1, 2, 4 and 8 tokens; tiles of 16, 32 and 64


def scattered(rows, columns):
    weight = inputs(rows, columns, dtype=torch.bfloat16)
    weight = weight * (inputs(rows, columns, seed=3) > 0)
    weight[-1] = 0  # no values where the last row's would be
    return weight


KINDS = {
    "dense": (scattered, lambda weight: weight, linear_dense),
    "2:4": (sparse_weight, pack_2to4, linear_2to4),
    "bitmap": (scattered, pack_bitmap, linear_bitmap),
}
EVEN = [(1, 32), (3, 64), (17, 96), (37, 544), (130, 192)]  # on and off 4, 16 rows; 64, 128 columns
ODD = [(1, 1), (16, 33), (5, 131), (33, 500)]
CASES = [*((kind, shape) for kind in KINDS for shape in EVEN)]
CASES += [(kind, shape) for kind in ("dense", "bitmap") for shape in ODD]


@every_bf16_set
@pytest.mark.parametrize(("kind", "shape"), CASES, ids=str)
def test_is_the_product(kind, shape, instruction_set):
    make, pack, multiply = KINDS[kind]
    weight, bias = make(*shape), 10 * inputs(shape[0], seed=2)
    packed = pack(weight)
    for tokens in TOKENS:
        x = inputs(tokens, shape[1], dtype=torch.bfloat16)
        assert_is_product(multiply(x, packed, bias, impl="native"), x, weight, bias=bias)


@every_bf16_set
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_spreads_as_in_a_dense_product(kind, value, instruction_set):
    make, pack, multiply = KINDS[kind]
    weight = make(9, 96)
    packed = pack(weight)
    for tokens in (1, 4, 6, 40):
        x = inputs(tokens, 96, dtype=torch.bfloat16)
        x[tokens // 2, 17] = value  # 0 * value is NaN: pruned weights count
        y = multiply(x, packed, impl="native").float()
        expected = x.float() @ weight.float().mT
        assert torch.equal(y.isnan(), expected.isnan()) and torch.equal(y.isinf(), expected.isinf())


@every_bf16_set
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_in_a_row_of_a_weight_stays_there(kind, instruction_set):
    make, pack, multiply = KINDS[kind]
    weight = make(21, 96)
    weight[5, weight[5] != 0] = float("nan")  # to the row's last value: no reading on
    for tokens in (1, 6):
        y = multiply(inputs(tokens, 96, dtype=torch.bfloat16), pack(weight), impl="native")
        assert y.isnan().any(0).tolist() == [row == 5 for row in range(21)]
