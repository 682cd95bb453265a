"""The rank-k update of bf16 rows in AMX tiles: float64's sums, and the emulation's bits."""

import pytest
import torch
from amx import FEWEST, everywhere, update
from instruction_sets import using
from numeric import EPS32, activations, hessian64, native

from rac_kernels import PackedTriangle, hessian_accumulate_

pytestmark = native

STEP, BATCH = 32, 2048  # of csrc/cpu/amx_panels.h
SMALLEST = 2.0**-126  # normal float32
ABOVE = 7.0  # any sum would change it, as it would not change NaN
# One row, odd numbers of rows, off a step of 32, off the 8 steps between reading and writing sums,
# off a batch; one feature, off a tile of 16, a panel of 32, a square of 64, a block row of 128.
SHAPES = [(1, 1), (1, 40), (33, 1), (31, 15), (32, 16), (33, 17), (64, 31), (65, 33), (97, 63)]
SHAPES += [(256, 65), (257, 127), (300, 128), (511, 129), (40, 257), (2048, 33), (2081, 20)]
SHAPES += [(260, 1030)]  # enough for squares of 256


def empty(features):
    """Zeros; ABOVE the diagonal what may not be touched."""
    return torch.full((features, features), ABOVE).triu(1)


def bound(x, row_weight=None):
    """Of the additions that an entry sees: 16 in a step, its steps, the batches.

    Every one rounds by at most a unit (Higham, section 4.2) or flushes what is subnormal.
    """
    rows = len(x)
    steps = min(-(-rows // STEP), BATCH // STEP)
    depth = STEP // 2 + 1 + steps + -(-rows // BATCH)
    size = hessian64(x.abs(), row_weight)
    return depth * EPS32 / (1 - depth * EPS32) * size + 3 * rows * SMALLEST


def assert_within(hessian, truth, limit):
    lower = torch.ones_like(hessian, dtype=torch.bool).tril()
    assert bool(((hessian.double() - truth).abs() <= limit)[lower].all())
    assert bool((hessian[~lower] == ABOVE).all()), "wrote above the diagonal"


def same_bits(first, second):
    lower = torch.ones_like(first, dtype=torch.bool).tril()
    return torch.equal(first[lower].view(torch.int32), second[lower].view(torch.int32))


@everywhere
@pytest.mark.parametrize(("tokens", "features"), SHAPES)
def test_equals_float64_and_writes_one_triangle(where, tokens, features):
    x = activations(tokens, features).bfloat16()
    assert_within(update(where, x, empty(features)), hessian64(x), bound(x))


@pytest.mark.parametrize(("tokens", "features"), [(FEWEST, 16), (777, 200), (2300, 50)])
def test_the_emulation_has_the_processors_bits(tokens, features):
    """Among them subnormal values and sums, and sums that overflow."""
    x = activations(tokens, features).bfloat16()
    x[:, ::7] *= 2.0**-126
    x[:, 1::7] *= 2.0**-64
    x[:, 2::7] *= 2.0**64
    x[5, 4::5] = 3e38
    results = [update(where, x, empty(features)) for where in ("amx", "emulated")]
    assert same_bits(*[result.nan_to_num(1.0) for result in results])
    assert bool(results[0].isinf().any()) and bool((results[0] == 0).any())


@everywhere
@pytest.mark.parametrize("features", [97, 300])
def test_threads_change_no_bit(where, features):
    features += 900 * (where == "amx")  # from where on it takes several
    x = activations(700, features).bfloat16()
    one, *others = [update(where, x, empty(features), threads=n) for n in (1, 2, 3, 16)]
    assert all(same_bits(one, other) for other in others)


@everywhere
@pytest.mark.parametrize("features", [1, 127, 128, 129, 256, 300])
def test_packed_triangle_has_the_bits_of_the_matrix(where, features):
    x = activations(100, features).bfloat16()
    packed = PackedTriangle.zeros(features)
    packed.data.fill_(3.0)
    update(where, x, packed)
    full = update(where, x, torch.full((features, features), 3.0))
    assert same_bits(packed.unpack(), full)


@everywhere
def test_whole_batches_can_come_in_any_number_of_calls(where):
    x = activations(BATCH + FEWEST, 20).bfloat16()
    parts = empty(20)
    for part in x.split(BATCH):
        update(where, part, parts)
    assert same_bits(parts, update(where, x, empty(20)))


@everywhere
def test_strides_and_nothing_written_outside_of_h(where):
    x = activations(80, 400).bfloat16()[::2, 5:130]  # rows not adjacent, not aligned
    memory = torch.full((200, 300), 9.0)
    hessian = memory[3:128, 7:132]
    hessian.copy_(empty(125))
    assert_within(update(where, x, hessian), hessian64(x), bound(x))
    memory[3:128, 7:132] = 9.0
    assert bool((memory == 9.0).all()), "wrote outside of H"


@everywhere
def test_rows_of_weight_zero_are_left_out_even_if_not_finite(where):
    x = activations(900, 100).bfloat16()
    active = torch.rand(900, generator=torch.Generator().manual_seed(2)) < 0.7
    expected = update(where, x[active].clone(), empty(100))
    x[~active] = float("nan")
    assert same_bits(update(where, x, empty(100), active), expected)
    assert same_bits(update(where, x, empty(100), torch.where(active, 1.0, -0.0)), expected)


@everywhere
def test_not_finite_values_reach_their_entries_alone(where):
    x = activations(100, 150).bfloat16()
    x[3, 140], x[50, 20] = float("nan"), float("inf")
    hessian = update(where, x, empty(150)).tril()
    wrong = torch.zeros(150, 150, dtype=torch.bool)
    wrong[[20, 140]] = wrong[:, [20, 140]] = True
    assert torch.equal(~hessian.isfinite(), wrong.tril())
    assert bool(hessian[140, :141].isnan().all() and hessian[20, 20] == float("inf"))


@everywhere
def test_every_normal_value_is_multiplied_exactly_and_subnormal_ones_count_as_zero(where):
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    for part in values.view(64, -1):
        x = torch.zeros(FEWEST, len(part) + 1, dtype=torch.bfloat16)
        x[7] = torch.cat([torch.ones(1, dtype=torch.bfloat16), part])
        product = update(where, x, torch.zeros(len(part) + 1, len(part) + 1))[1:, 0]  # 1 * part
        kept = torch.where(part.float().abs() < SMALLEST, 0.0, part.float())
        assert torch.equal(product.nan_to_num(7e38), kept.nan_to_num(7e38))
        assert torch.equal(product.isnan(), part.isnan())


def test_weights_few_rows_and_other_dtypes_are_left_to_avx512():
    x = activations(100, 50)
    weight = torch.rand(100, generator=torch.Generator().manual_seed(3))
    options = [(x.bfloat16(), weight), (x.bfloat16()[: FEWEST - 1], None), (x, None)]
    for rows, row_weight in [*options, (x.half(), None)]:
        results = []
        for name in ("amx", "avx512"):
            with using(name):
                hessian = empty(50)
                hessian_accumulate_(hessian, rows, row_weight=row_weight, impl="native")
                results.append(hessian)
        assert same_bits(*results)


def test_torch_multiplies_bf16_before_and_after():
    """Whose tiles may have other shapes, which a thread's registers keep."""
    x = activations(256, 128).bfloat16()
    expected, product = update("amx", x, empty(128)), x.mT @ x
    for threads in (1, 2):
        assert torch.equal(x.mT @ x, product)
        assert same_bits(update("amx", x, empty(128), threads=threads), expected)
