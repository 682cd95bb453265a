"""The C++ rank-k update: float64's sums, and the same bits however the work is split."""

import pytest
import torch
from instruction_sets import every_instruction_set, using
from numeric import EPS32, activations, hessian64, native

from rac_kernels import PackedTriangle, _native, hessian_accumulate_, native_status

pytestmark = native

CHUNK = 384  # KC of csrc/cpu/panels.h
ABOVE = 7.0  # the diagonal, where nothing may be touched: any sum would change it, but not NaN
# One row, one column; on and one off a strip of 96 features, a square of 192, a block row of 128;
# on and one off a group of 8 rows and a chunk of 384.
SHAPES = [(1, 1), (1, 7), (5, 1), (8, 96), (7, 97), (384, 95), (385, 128), (9, 129), (1000, 193)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def update(x, hessian=None, **options):
    """The sum of x, on top of ``hessian``; by default zeros, and ABOVE the diagonal."""
    if hessian is None:
        features = x.shape[-1]
        hessian = torch.full((features, features), ABOVE).triu(1)
    return hessian_accumulate_(hessian, x, impl="native", **options)


def bound(x, row_weight=None):
    """Higham, section 4.2: a chunk's sum, then the sum of chunks, a product and a weighting."""
    rows = x.reshape(-1, x.shape[-1]).shape[0]
    depth = min(rows, CHUNK) + -(-rows // CHUNK) + 2
    size = hessian64(x.abs(), None if row_weight is None else row_weight.abs())
    return depth * EPS32 * size


def assert_within(hessian, x, row_weight=None):
    error = (hessian.double() - hessian64(x, row_weight)).abs().tril()
    limit = bound(x, row_weight)
    assert bool((error <= limit)[torch.ones_like(error, dtype=torch.bool).tril()].all())
    assert bool((hessian[torch.ones_like(hessian, dtype=torch.bool).triu(1)] == ABOVE).all())


def same_bits(first, second):
    lower = torch.ones_like(first, dtype=torch.bool).tril()
    return torch.equal(first[lower].view(torch.int32), second[lower].view(torch.int32))


@every_instruction_set
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "features"), SHAPES)
def test_equals_float64_and_writes_one_triangle(instruction_set, tokens, features, dtype):
    x = activations(tokens, features).to(dtype)
    assert_within(update(x), x)


@every_instruction_set
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_precision_value_is_widened_exactly(instruction_set, dtype):
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    for part in values.view(64, -1):
        x = torch.cat([torch.ones(1, dtype=dtype), part])[None]
        product = update(x, torch.zeros(len(part) + 1, len(part) + 1))[1:, 0]  # 1 * part
        assert torch.equal(product.nan_to_num(7e38), part.float().nan_to_num(7e38))
        assert torch.equal(product.isnan(), part.isnan())


@pytest.mark.parametrize("features", [97, 300, 577])
def test_threads_change_no_bit(features):
    x = activations(900, features)
    results = []
    for threads in (1, 2, 3, 16):
        torch.set_num_threads(threads)
        try:
            results.append(update(x))
        finally:
            torch.set_num_threads(1)
    assert all(same_bits(results[0], other) for other in results[1:])


def test_fused_instruction_sets_give_the_same_bits():
    x, results = activations(500, 250).bfloat16(), []
    for name in ("avx2", "avx512"):
        with using(name):
            results.append(update(x))
    assert same_bits(*results)


@pytest.mark.parametrize("features", [1, 127, 128, 129, 256, 300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_triangle_has_the_bits_of_the_matrix(features, dtype):
    x = activations(400, features).to(dtype)
    packed = PackedTriangle.zeros(features)
    packed.data.fill_(3.0)
    assert hessian_accumulate_(packed, x, impl="native") is packed
    full = update(x, torch.full((features, features), 3.0))
    assert same_bits(packed.unpack(), full)


def test_whole_chunks_can_come_in_any_number_of_calls():
    x = activations(3 * CHUNK + 5, 50)
    parts = torch.full((50, 50), ABOVE).triu(1)
    for part in x.split(CHUNK):
        update(part, parts)
    assert same_bits(parts, update(x))


def test_adds_to_what_is_there():
    x = activations(20, 130)
    hessian = update(x, torch.full((130, 130), 2.0)).double().tril()
    limit = bound(x) + 2 * EPS32 * (hessian64(x).abs() + 2)
    assert bool(((hessian - (hessian64(x) + 2).tril()).abs() <= limit).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_row_weight(dtype):
    x = activations(600, 100).to(dtype).view(20, 30, 100)
    weight = torch.rand(30, 20, generator=torch.Generator().manual_seed(1)).mT - 0.2
    assert_within(update(x, row_weight=weight), x, weight)


def test_rows_of_weight_zero_are_left_out_even_if_not_finite():
    x = activations(900, 100)
    active = torch.rand(900, generator=torch.Generator().manual_seed(2)) < 0.7
    expected = update(x[active])
    x[~active] = float("nan")
    x[(~active).nonzero()[0]] = float("inf")
    assert same_bits(update(x, row_weight=active), expected)
    assert same_bits(update(x, row_weight=torch.where(active, 1.0, -0.0)), expected)
    before = torch.ones(100, 100)
    assert torch.equal(update(x, before.clone(), row_weight=torch.zeros(900)), before)


def test_not_finite_rows_reach_their_entries_alone():
    x = activations(10, 200)
    x[3, 150] = float("nan")
    broken = update(x, torch.zeros(200, 200)).tril().isnan()
    expected = torch.zeros(200, 200, dtype=torch.bool)
    expected[150, :151] = expected[150:, 150] = True
    assert torch.equal(broken, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(dtype):
    wide = activations(60, 400).to(dtype)
    x = wide.view(4, 15, 400)[:, ::2, 5:130]  # rows not adjacent, not aligned
    memory = torch.full((200, 300), 9.0)
    hessian = memory[3:128, 7:132]
    hessian.copy_(torch.full((125, 125), ABOVE).triu(1))
    assert_within(update(x, hessian), x)
    memory[3:128, 7:132] = 9.0
    assert bool((memory == 9.0).all()), "wrote outside of H"
    repeated = wide[:1, :125].expand(50, 125)  # one row, stride 0
    assert_within(update(repeated), repeated)


def test_nothing_to_add():
    hessian = torch.full((4, 4), 3.0)
    update(torch.empty(0, 4), hessian)
    update(torch.empty(2, 0, 4), hessian, row_weight=torch.empty(2, 0))
    assert bool((hessian == 3).all())
    assert update(torch.empty(3, 0)).shape == (0, 0)


def test_a_hessian_it_cannot_write_goes_to_the_reference_or_is_an_error():
    x = activations(30, 20)
    turned = torch.zeros(20, 20).mT
    with pytest.raises(
        ValueError, match="impl='native' cannot run: it needs a hessian with a unit"
    ):
        hessian_accumulate_(turned, x, impl="native")
    hessian_accumulate_(turned, x)
    assert bool(((turned.double() - hessian64(x)).abs().tril() <= bound(x)).all())
    with pytest.raises(ValueError, match="the rows of H overlap"):
        _native.hessian_accumulate_(torch.zeros(20).expand(20, 20), x, None)


def test_auto_takes_it_where_it_is_faster(monkeypatch):
    called = []
    original = _native.hessian_accumulate_
    monkeypatch.setattr(
        _native, "hessian_accumulate_", lambda *args: called.append(1) or original(*args)
    )
    module = _native.load(_native.CPU)
    for name, times in (("baseline", 0), ("best", native_status()["cpu"] != "ok (baseline)")):
        module.use_instruction_set(name)
        hessian_accumulate_(torch.zeros(5, 5), torch.ones(2, 5))
        assert len(called) == times


@pytest.mark.parametrize("columns", [1, 65, 4099])  # the last: pages of zeros that take no memory
@pytest.mark.parametrize("threads", [1, 3])
def test_copies_a_lower_triangle(columns, threads):
    hessian = torch.randn(columns, columns + 3)[:, :columns]
    work = torch.full((columns, columns), float("nan"))
    with _native.use_threads(threads):
        _native.copy_lower_(work, hessian)
    assert torch.equal(work, hessian.tril())
