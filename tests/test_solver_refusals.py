"""What the pruners refuse of arguments of the wrong kind, and that nothing is changed by it."""

import pytest
import torch
from numeric import layer

from rac_kernels import (
    HessianFactor,
    PackedTriangle,
    Pattern,
    alps,
    factor_hessian,
    factor_hessians,
    hessian_accumulate_,
    mask_and_pack_2to4,
    select_mask,
    sparsegpt,
    sparsegpt_batch,
    symmetrize_,
    wanda,
)

HALF = Pattern(0.5)
WEIGHT, HESSIAN = layer(6, 12)
FACTOR = factor_hessian(HESSIAN)
TRIANGLE = PackedTriangle.pack(HESSIAN)
HALVES = torch.zeros(4, 32, dtype=torch.bfloat16)
UNPACK = "got PackedTriangle; pass what its unpack"


def with_parts(**parts):
    return HessianFactor(
        **{"upper": FACTOR.upper, "dead": FACTOR.dead} | parts, damping=0, attempts=1
    )


# What is said -> the call.
REFUSED = {
    "sparsegpt: expected a HessianFactor from factor_hessian, got Tensor": lambda: sparsegpt(
        WEIGHT, HESSIAN, HALF
    ),
    "sparsegpt_batch: number 1: sparsegpt: expected a HessianFactor from factor_hessian, got": (
        lambda: sparsegpt_batch([WEIGHT, WEIGHT], [FACTOR, HESSIAN], HALF)
    ),
    "sparsegpt: expected factor.upper in float32, got torch.float64": lambda: sparsegpt(
        WEIGHT, with_parts(upper=FACTOR.upper.double()), HALF
    ),
    "sparsegpt: expected factor.dead [12], got [3]": lambda: sparsegpt(
        WEIGHT, with_parts(dead=FACTOR.dead[:3]), HALF
    ),
    f"factor_hessian: expected a tensor for hessian, {UNPACK}": lambda: factor_hessian(TRIANGLE),
    f"symmetrize_: expected a tensor for hessian, {UNPACK}": lambda: symmetrize_(TRIANGLE),
    f"sparsegpt: expected a tensor for weight, {UNPACK}": lambda: sparsegpt(TRIANGLE, FACTOR, HALF),
    "wanda: expected a tensor for hessian_diagonal, got list": lambda: wanda(
        WEIGHT, [1.0] * 12, HALF
    ),
    "mask_and_pack_2to4: expected a tensor for hessian_diagonal, got list": (
        lambda: mask_and_pack_2to4(HALVES, [1.0] * 32)
    ),
    "hessian_accumulate_: expected a tensor for row_weight, got list": lambda: hessian_accumulate_(
        torch.zeros(12, 12), WEIGHT, row_weight=[1.0] * 6
    ),
    "sparsegpt: expected an integer for block_size, got float 1.5": lambda: sparsegpt(
        WEIGHT, FACTOR, HALF, block_size=1.5
    ),
    "sparsegpt: expected an integer for block_size, got str '128'": lambda: sparsegpt(
        WEIGHT, FACTOR, HALF, block_size="128"
    ),
    "select_mask: expected an integer for block_size, got float 1.5": lambda: select_mask(
        WEIGHT, HALF, "block", block_size=1.5
    ),
    "factor_hessian: expected a number for damping, got str 'a'": lambda: factor_hessian(
        HESSIAN, "a"
    ),
    "factor_hessian: expected a number for max_damping, got NoneType None": lambda: factor_hessian(
        HESSIAN, max_damping=None
    ),
    "alps: expected a number for damping, got str 'a'": lambda: alps(
        WEIGHT, HESSIAN, HALF, damping="a"
    ),
    "alps: expected an integer for max_iterations, got float 1.5": lambda: alps(
        WEIGHT, HESSIAN, HALF, max_iterations=1.5
    ),
    "factor_hessians: number 1: factor_hessian: expected hessian with 2 dimensions, got []": (
        lambda: factor_hessians([HESSIAN, torch.tensor(1.0)])
    ),
    "factor_hessians: number 0: factor_hessian: expected a tensor for hessian, got float": (
        lambda: factor_hessians([1.0, HESSIAN])
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_arguments_of_the_wrong_kind_are_named(message):
    given = (WEIGHT, HESSIAN, FACTOR.upper, FACTOR.dead, TRIANGLE.data)
    before = [tensor.clone() for tensor in given]
    with pytest.raises((TypeError, ValueError)) as raised:
        REFUSED[message]()
    assert str(raised.value).startswith(message)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


@pytest.mark.parametrize("impl", ["reference", "auto"])
@pytest.mark.parametrize(
    ("weight", "options"),
    [
        (WEIGHT, {"pattern": Pattern.parse("2:5")}),
        (WEIGHT, {"pattern": HALF, "block_size": 0}),
        (WEIGHT, {"pattern": None}),
        (WEIGHT, {"pattern": HALF, "mask": torch.ones(5, 12, dtype=torch.bool)}),
        (WEIGHT[:, :8], {"pattern": HALF}),
        (WEIGHT.index_fill(1, torch.tensor(7), torch.inf), {"pattern": HALF}),
    ],
)
def test_a_refusal_changes_nothing(weight, options, impl):
    given = (weight, FACTOR.upper, FACTOR.dead)
    before = [tensor.clone() for tensor in given]
    with pytest.raises(ValueError, match="^sparsegpt: expected "):
        sparsegpt(weight, FACTOR, **options, impl=impl)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
