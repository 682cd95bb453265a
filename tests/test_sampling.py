"""Drawn tokens against transformers' own warpers."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper
from transformers.generation import TopPLogitsWarper

from rac.engines import Sampling, generate
from rac.engines.sampling import DRAW_BITS, draws, sample, stream_key, to_uniform


class FixedLogits(torch.nn.Module):
    """A "model" that gives every token the same logits, and keeps zeros in its cache."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits, requires_grad=False)
        self.generation_config = SimpleNamespace(eos_token_id=None)
        text = SimpleNamespace(eos_token_id=None, max_position_embeddings=None)
        self.config = SimpleNamespace(get_text_config=lambda: text)

    def forward(self, input_ids, attention_mask, past_key_values):
        nothing = torch.zeros(len(input_ids), 1, input_ids.shape[1], 1)
        past_key_values.update(nothing, nothing, 0)
        return SimpleNamespace(logits=self.logits.expand(len(input_ids), 1, -1))


def expected_probabilities(logits, temperature, top_p):
    """transformers' own warpers: the independent truth."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p)])
    return warpers(None, logits[None].clone()).softmax(-1)[0].double()


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.6, 0.95), (1.7, 0.5), (1.0, 1e-6)])
def test_sampled_tokens_follow_the_nucleus(temperature, top_p):
    logits = 2 * torch.randn(12, generator=torch.Generator().manual_seed(3))
    sampling = Sampling(100, temperature, top_p, seed=7)
    traces = list(generate(FixedLogits(logits), [[1]] * 60, sampling, batch_size=20))
    tokens = torch.tensor([t.output_ids for t in traces]).flatten()
    counts = torch.bincount(tokens, minlength=12).double()
    expected = expected_probabilities(logits, temperature, top_p) * len(tokens)
    assert len(tokens) == 6000
    assert torch.equal(counts > 0, expected > 0) or expected[expected > 0].min() < 10
    assert counts[expected == 0].sum() == 0
    kept = expected > 5
    chi_square = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert chi_square < 40  # 11 degrees of freedom: p = 4e-5


def test_nucleus_is_the_smallest_set_that_reaches_top_p():
    """Probabilities 1/2, 1/4, 1/8, 1/8: half the mass is the first token alone."""
    model = FixedLogits(torch.tensor([0.5, 0.25, 0.125, 0.125]).log())
    traces = list(generate(model, [[0]], Sampling(400, 1.0, 0.5)))
    assert set(traces[0].output_ids) == {0}
    traces = list(generate(model, [[0]], Sampling(400, 1.0, 0.51)))
    assert set(traces[0].output_ids) == {0, 1}


def test_draws_follow_the_uniform_numbers():
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(0))

    def draw(seed):
        uniform = torch.rand(50, generator=torch.Generator().manual_seed(seed))
        return sample(logits, Sampling(1, 1.0, 0.9), uniform)

    assert draw(1).dtype == torch.long and draw(1).shape == (50,)
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def test_random_numbers_are_splitmix64s():
    """Its published first outputs from the seed 1234567."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    drawn = draws([1234567] * 5, range(5))
    assert drawn == [number >> (64 - DRAW_BITS) for number in published]
    assert draws([1234567, 2**64 - 1, 1234567], [4, 9, 2])[::2] == [drawn[4], drawn[2]]


def test_streams_are_apart_and_uniform():
    keys = [stream_key(seed, request) for seed in range(40) for request in range(50)]
    assert len(set(keys)) == 2000
    uniform = to_uniform(torch.tensor([draws(keys, [n] * 2000) for n in range(20)])).double()
    assert uniform.min() >= 0 and uniform.max() < 1
    counts = torch.histc(uniform, 100, 0, 1)
    assert ((counts - 400) ** 2 / 400).sum() < 175  # 99 degrees of freedom: p = 4e-6
    # Neighbours in position, seed and request: the mean of 40,000 products deviates by 1/2400.
    centred = (uniform - 0.5).view(20, 40, 50)
    for dim in range(3):
        assert abs(float((centred * centred.roll(1, dim)).mean())) < 5 / 2400
    assert to_uniform(torch.tensor([2**DRAW_BITS - 1])).item() < 1


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_rows_without_a_distribution_give_minus_one(temperature):
    logits = torch.zeros(5, 20)
    logits[0, 3], logits[1, 3], logits[2] = torch.nan, torch.inf, -torch.inf
    logits[3, :19] = -torch.inf
    ids = sample(logits, Sampling(1, temperature, 0.9), torch.zeros(5))
    assert ids[:4].tolist() == [-1, -1, -1, 19] and 0 <= int(ids[4]) < 20


def test_greedy_takes_the_most_likely():
    logits = torch.tensor([[0.0, 2, 2, 1], [5, -1, 0, 0]])
    assert sample(logits, Sampling(1, 0.0), torch.zeros(2)).tolist() == [1, 0]
