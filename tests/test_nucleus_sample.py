"""Draws against float64, and against the probabilities that a fine grid of draws must reproduce."""

import importlib

import pytest
import torch
from instruction_sets import every_instruction_set, using
from nucleus import Truth, check, grid, implementation, random_logits, rows
from numeric import native
from triton_interpreter import DEVICE, needs_triton

from rac_kernels import nucleus_sample

MODULE = "rac_kernels._triton.nucleus_sample"
LARGEST_UNIFORM = 1 - 2**-24
# The interpreter's numpy says where -Inf comes in.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")


# One id; off and on a block of 256, 1024 and 4096; several blocks.
@implementation
@pytest.mark.parametrize("vocabulary", [1, 2, 5, 255, 256, 257, 1500, 4096, 9001])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.95), (1.7, 0.5)])
def test_equals_float64(impl, device, vocabulary, temperature, top_p):
    logits = random_logits(rows(impl, 12), vocabulary, seed=vocabulary)
    check(impl, device, logits, temperature=temperature, top_p=top_p)


@implementation
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_half_precision(impl, device, dtype, top_p):
    logits = random_logits(rows(impl, 20), 3000).to(
        dtype
    )  # bf16: hundreds of ids have equal logits
    check(impl, device, logits, temperature=0.8, top_p=top_p)


@implementation
@pytest.mark.parametrize("temperature", [1e-3, 100.0, 1e-30, 1e30])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 1e-50, 1 - 1e-6])
def test_extremes(impl, device, temperature, top_p):
    logits = random_logits(rows(impl, 8), 700)
    ids = check(impl, device, logits, temperature=temperature, top_p=top_p)
    if temperature <= 1e-3 or top_p == 1e-50:
        assert torch.equal(ids, logits.argmax(-1))


@native
@every_instruction_set
@pytest.mark.parametrize("vocabulary", [1, 7, 255, 256, 300, 5000])
def test_greedy_is_the_first_of_the_largest(instruction_set, vocabulary):
    logits = (8 * random_logits(64, vocabulary)).round() / 8  # ties
    logits = torch.cat([logits, logits.new_full((1, vocabulary), -torch.inf), logits[:2]])
    logits[:30, : vocabulary // 2] = -torch.inf
    logits[-2:, vocabulary // 2] = torch.tensor([torch.nan, torch.inf])
    largest = logits.amax(-1, keepdim=True)
    expected = (logits == largest).int().argmax(-1)
    expected[-3:] = -1
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for impl in ("native", "reference"):
            ids = nucleus_sample(logits.to(dtype), torch.zeros(67), temperature=0, impl=impl)
            first = (logits.to(dtype) == largest.to(dtype)).int().argmax(-1)
            assert torch.equal(ids, expected.where(expected < 0, first)), (dtype, impl)


@implementation
@pytest.mark.parametrize("top_p", [1.0, 0.7])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_a_grid_of_draws_reproduces_the_probabilities(impl, device, temperature, top_p):
    draws, logits = 15 * rows(impl, 120), random_logits(1, 40)
    repeated = logits.expand(draws, -1)  # row stride 0
    shape = {"temperature": temperature, "top_p": top_p}
    ids = check(impl, device, repeated, uniform=grid(draws), slack=1e-6, **shape)
    assert bool((ids.diff() >= 0).all()), "not in the order of ids"
    expected = draws * Truth(logits, temperature, top_p).probabilities()[0]
    counts = torch.bincount(ids, minlength=40)
    # A range of the grid of length x holds floor(x) or ceil(x) points.
    assert bool(((counts - expected).abs() < 1 + 1e-3).all())
    assert bool((counts[expected == 0] == 0).all())


@implementation
def test_nucleus_is_the_smallest_set_that_reaches_top_p(impl, device):
    """Probabilities 1/8, 1/2, 1/8, 1/4."""
    logits = torch.tensor([[0.125, 0.5, 0.125, 0.25]]).log()
    uniform = grid(6 * rows(impl, 50)).to(device)
    logits = logits.expand(len(uniform), -1).to(device)
    for top_p, ids in ((0.499, {1}), (0.501, {1, 3}), (0.751, {0, 1, 3}), (0.876, {0, 1, 2, 3})):
        drawn = nucleus_sample(logits, uniform, top_p=top_p, impl=impl)
        assert set(drawn.tolist()) == ids, top_p


@implementation
@pytest.mark.parametrize("vocabulary", [8, 6000])
def test_ties_at_the_border_go_to_the_lowest_ids(impl, device, vocabulary):
    """All equal: half of the mass is the first half of the ids."""
    uniform = torch.cat([torch.tensor([0.0, LARGEST_UNIFORM]), grid(rows(impl, 999))])
    logits = torch.full((len(uniform), vocabulary), -3.0, device=device)
    ids = nucleus_sample(logits, uniform.to(device), top_p=0.5 - 0.1 / vocabulary, impl=impl).cpu()
    expected = (uniform.double() * (vocabulary // 2)).floor().long()
    assert bool(((ids - expected).abs() <= 1e-6 * vocabulary).all())
    assert ids[:2].tolist() == [0, vocabulary // 2 - 1]


@implementation
def test_ties_below_a_likelier_id(impl, device):
    """Weights 1, 4, 1, 1, 1 and top_p of 6 of 8: ids 0, 1 and 2."""
    logits = torch.tensor([[1.0, 4, 1, 1, 1]]).log()
    logits, uniform = logits.expand(24, -1).to(device), grid(24).to(device)
    ids = nucleus_sample(logits, uniform, top_p=0.74, impl=impl)
    assert torch.bincount(ids, minlength=5).tolist() == [4, 16, 4, 0, 0]


@implementation
def test_ties_that_do_not_belong_are_passed_over(impl, device):
    """2999 ids of weight 1 and one of 1000, far behind the 600 that belong."""
    weights = torch.ones(1, 3000)
    weights[0, 2500] = 1000
    logits = weights.log().expand(4, -1).to(device)
    uniform = torch.tensor([0.1003, 0.37, 0.5, 0.999], device=device)  # of 1600
    ids = nucleus_sample(logits, uniform, top_p=1599.5 / 3999, impl=impl)
    assert ids.tolist() == [160, 592, 2500, 2500]


@implementation
@pytest.mark.parametrize("top_p", [1.0, 0.95])
def test_both_ends_of_uniform(impl, device, top_p):
    logits = random_logits(2 * rows(impl, 15), 2500)
    logits[:, ::3] = -torch.inf
    ends = torch.tensor([0.0, LARGEST_UNIFORM]).repeat(len(logits) // 2)
    ids = check(impl, device, logits, top_p=top_p, uniform=ends)
    nucleus = Truth(logits, 1.0, top_p).nucleus().long()
    assert torch.equal(ids[::2], nucleus.argmax(-1)[::2])
    last = 2499 - nucleus.flip(-1).argmax(-1)
    assert bool((ids[1::2] <= last[1::2]).all())


@implementation
def test_one_hot_rows(impl, device):
    logits = torch.full((6, 300), -torch.inf, device=device)
    hot = torch.tensor([0, 1, 17, 255, 256, 299], device=device)
    logits[torch.arange(6), hot] = torch.tensor([0.0, 5, -5, 3e38, -3e38, 1], device=device)
    uniform = torch.tensor([0.0, 0.3, LARGEST_UNIFORM] * 2, device=device)
    for top_p in (1.0, 0.5):
        assert torch.equal(nucleus_sample(logits, uniform, top_p=top_p, impl=impl), hot)


@implementation
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_rows_without_a_distribution_give_minus_one(impl, device, top_p):
    logits = random_logits(6, 500)
    logits[0, 499], logits[1, 0], logits[3, 7] = torch.nan, torch.inf, -torch.inf
    logits[4] = -torch.inf
    logits[5] = torch.nan
    uniform = torch.full((6,), 0.5, device=device)
    ids = nucleus_sample(logits.to(device), uniform, top_p=top_p, impl=impl)
    assert (ids == -1).tolist() == [True, True, False, False, True, True]


@implementation
def test_no_rows_and_rows_of_a_larger_tensor(impl, device):
    none = nucleus_sample(torch.empty(0, 7, device=device), torch.empty(0, device=device))
    assert none.shape == (0,) and none.dtype == torch.long
    wide = random_logits(10, 900)
    part, uniform = wide[::2, 100:800], grid(10)[::2]
    before = wide.clone()
    whole = nucleus_sample(
        part.contiguous().to(device), uniform.clone().to(device), top_p=0.9, impl=impl
    )
    part, uniform = wide.to(device)[::2, 100:800], grid(10).to(device)[::2]
    assert torch.equal(nucleus_sample(part, uniform, top_p=0.9, impl=impl), whole)
    assert torch.equal(wide, before)


@needs_triton
@pytest.mark.parametrize("spread", [0.1, 3.0])
@pytest.mark.parametrize("capacity", [16, 64])
def test_triton_searches_the_row_where_candidates_are_too_many(monkeypatch, spread, capacity):
    module = importlib.import_module(MODULE)
    monkeypatch.setattr(module, "CAPACITY", capacity)
    monkeypatch.setattr(module, "BLOCK_V", 512)
    logits = random_logits(rows("triton", 12), 1300, spread)
    logits[1:] = logits[1:].round(decimals=1)  # ties
    check("triton", DEVICE, logits, top_p=0.93)


@needs_triton
def test_triton_does_not_stop_at_its_candidates(monkeypatch):
    """Ten ids of 0.07 are copied, top_p wants 0.05 more of 1290 small ones."""
    monkeypatch.setattr(importlib.import_module(MODULE), "CAPACITY", 16)
    probabilities = torch.full((1, 1300), 0.3 / 1290)
    probabilities[0, 5:105:10] = 0.07
    uniform = torch.tensor([0.5, 0.9999])
    ids = check("triton", DEVICE, probabilities.log().expand(2, -1), top_p=0.75, uniform=uniform)
    assert int(ids[1]) > 200


@native
@every_instruction_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_instruction_set_gives_the_same_ids(instruction_set, dtype):
    logits, uniform = random_logits(200, 777).to(dtype), grid(200)

    def draw():
        return [
            nucleus_sample(logits, uniform, temperature=0.7, top_p=p, impl="native")
            for p in (1.0, 0.95)
        ]

    found = draw()
    with using("baseline"):
        assert all(map(torch.equal, draw(), found))


@native
def test_threads_change_nothing():
    logits, uniform = random_logits(40, 7000), grid(40)
    one = nucleus_sample(logits, uniform, top_p=0.95, impl="native")
    torch.set_num_threads(3)
    try:
        assert torch.equal(nucleus_sample(logits, uniform, top_p=0.95, impl="native"), one)
    finally:
        torch.set_num_threads(1)


BAD = {
    "expected logits with 2 dimensions, got [4]": {"logits": torch.zeros(4)},
    "expected logits in float32, bfloat16, float16": {"logits": torch.zeros(2, 4).double()},
    "expected logits of at least one id, got [2, 0]": {"logits": torch.zeros(2, 0)},
    "expected logits with a unit last stride": {"logits": torch.zeros(4, 2).mT},
    "expected uniform [2] for logits [2, 4], got [3]": {"uniform": torch.zeros(3)},
    "expected uniform in float32, got torch.float64": {"uniform": torch.zeros(2).double()},
    "expected all tensors on one device": {"uniform": torch.zeros(2, device="meta")},
    "expected a temperature above 0, a normal float32, or 0, got 1e-39": {"temperature": 1e-39},
    "expected a temperature above 0, a normal float32, or 0, got nan": {
        "temperature": float("nan")
    },
    "expected a temperature above 0, a normal float32, or 0, got inf": {
        "temperature": float("inf")
    },
    "expected top_p above 0 and at most 1, got 0": {"top_p": 0},
    "expected top_p above 0 and at most 1, got 1.1": {"top_p": 1.1},
    "expected impl one of auto, reference, triton, native": {"impl": "fast"},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    arguments = {"logits": torch.zeros(2, 4), "uniform": torch.zeros(2)} | BAD[message]
    with pytest.raises((ValueError, TypeError)) as caught:
        nucleus_sample(**arguments)
    assert str(caught.value).startswith("nucleus_sample: " + message)
