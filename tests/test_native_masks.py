"""C++ masks of many scores: searched rows, sampled layers, threads, every instruction set."""

import pytest
import torch
from instruction_sets import every_instruction_set
from numeric import lowest
from numeric import native as built

from rac_kernels import Pattern, _native, magnitude, select_mask, wanda

pytestmark = built
SIZE = 70_000  # scores from which a segment is sampled, where threads outnumber segments


@pytest.fixture
def threads():
    yield torch.set_num_threads
    torch.set_num_threads(1)


def signed(rows, columns, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, columns, generator=generator).to(dtype)


def distributions():
    """Lists of SIZE scores that mislead a search, by name."""
    normal = signed(1, SIZE)[0]
    few = torch.randint(0, 3, (SIZE,), generator=torch.Generator().manual_seed(0)).float()
    rare = torch.zeros(SIZE)
    rare[::1000] = normal[::1000]
    return {
        "normal": normal,
        "magnitudes": normal.abs(),
        "one value": torch.full((SIZE,), -0.25),
        "zeros of both signs": torch.where(normal < 0, -0.0, 0.0),
        "three values": few - 1,
        "nearly all zero": rare,
        "ascending": torch.arange(SIZE).float(),
        "descending": -torch.arange(SIZE).float(),
        "every exponent": normal.sign() * 2.0 ** (normal * 40).clamp(-149, 127),
        "infinite": torch.where(normal > 0, float("inf"), -float("inf")),
        "some infinite": torch.where(normal > 1, float("inf"), normal),
    }


@pytest.mark.parametrize("sparsity", [0.0, 1e-5, 0.1, 0.5, 0.9, 0.99999, 1.0])
@pytest.mark.parametrize("name", distributions())
def test_a_layer_is_a_stable_sort_whatever_its_scores(name, sparsity, threads):
    scores = distributions()[name].view(70, -1)
    for dtype in (torch.float32, torch.bfloat16):
        scores = scores.to(dtype)
        truth = ~lowest(scores.double().view(1, -1), round(SIZE * sparsity)).view_as(scores)
        for count in (1, 3):  # one thread searches, several sample
            threads(count)
            mask = select_mask(scores, Pattern(sparsity), "layer", impl="native")
            assert torch.equal(mask, truth)


@pytest.mark.parametrize("name", distributions())
def test_long_rows_are_a_stable_sort_whatever_their_scores(name):
    scores = distributions()[name].view(7, -1)
    for sparsity in (0.01, 0.5, 0.9):
        truth = ~lowest(scores.double(), round(10_000 * sparsity))
        assert torch.equal(select_mask(scores, Pattern(sparsity), impl="native"), truth)


def test_blocks_of_many_rows(threads):
    """The last block is narrower; blocks are searched by one thread and sampled by three."""
    scores = signed(900, 250, torch.bfloat16)
    blocks = [block.reshape(1, -1).double() for block in scores.split(100, 1)]
    truth = [~lowest(b, round(b.numel() * 0.3)).view(900, -1) for b in blocks]
    for count in (1, 3, 5):
        threads(count)
        mask = select_mask(scores, Pattern(0.3), "block", block_size=100, impl="native")
        assert torch.equal(mask, torch.cat(truth, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "3:8", "1:100"])
@every_instruction_set
def test_every_instruction_set_gives_the_references_bits(instruction_set, pattern, dtype):
    weight, pattern = signed(33, 1000, dtype), Pattern.parse(pattern)
    weight.view(-1)[::9] *= 1e-6  # subnormal in float16
    diagonal = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    for op in (magnitude, lambda w, p, impl: wanda(w, diagonal, p, impl=impl)):
        found, expected = op(weight, pattern, impl="native"), op(weight, pattern, impl="reference")
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    for per in ("row", "block", "layer"):
        found = select_mask(weight, pattern, per, impl="native")
        assert torch.equal(found, select_mask(weight, pattern, per, impl="reference"))


def test_threads_change_nothing(threads):
    weight, diagonal = signed(600, 512), torch.rand(512)
    for pattern in (Pattern(0.5), Pattern.parse("2:4")):
        threads(1)
        one = [*wanda(weight, diagonal, pattern, impl="native"), *magnitude(weight, pattern)]
        threads(3)
        three = [*wanda(weight, diagonal, pattern, impl="native"), *magnitude(weight, pattern)]
        assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_every_half_is_read_as_torch_reads_it():
    """All finite and infinite bit patterns, ranked in float32 by Wanda's score."""
    for dtype in (torch.float16, torch.bfloat16):
        halves = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
        halves = halves[~halves.isnan()].view(1, -1)
        order = halves.float().abs().sort(stable=True).indices[0]
        mask = wanda(halves, torch.ones(halves.shape[1]), Pattern(0.4), impl="native")[1]
        pruned = order[: round(halves.numel() * 0.4)]
        assert torch.equal((~mask[0]).nonzero()[:, 0], pruned.sort().values)


def test_auto_takes_the_one_call(monkeypatch):
    called = []
    original = _native.select_mask
    monkeypatch.setattr(
        _native, "select_mask", lambda *a, **k: called.append(k["score"]) or original(*a, **k)
    )
    weight = signed(4, 8)
    select_mask(weight, Pattern(0.5), "layer")
    wanda(weight, torch.ones(8), Pattern(0.5))
    magnitude(weight, Pattern.parse("2:4"))
    assert called == ["value", "wanda", "abs"]


def test_nan_in_a_sampled_layer_is_refused(threads):
    threads(3)
    scores = signed(700, 100)
    scores[699, 99] = float("nan")
    with pytest.raises(ValueError, match="select_mask: expected scores without NaN"):
        select_mask(scores, Pattern(0.5), "layer", impl="native")
