"""A budget of tokens: spent exactly, prompts taken round and round, few traces cut at its end."""

import pytest
from conftest import END_ID
from test_engines import random_prompts, run

from rac.engines import Generation, Sampling
from rac.models import load_model


class Recorder:
    """Counts what the engine calls real, and gathers those ids from the embedding's input."""

    def __init__(self, model) -> None:
        self.counts = {"prompt": 0, "decode": 0}
        self.ids: list[int] = []
        self.real = None
        model.get_input_embeddings().register_forward_pre_hook(self._see)

    def prefill(self, real, tokens):
        self.real = real
        self.counts["prompt"] += tokens
        assert tokens == int(real.sum())

    def open_step(self, rows, tokens):
        self.expected = rows, tokens

    def step(self, active):
        assert self.expected == (len(active), int(active.sum()))
        self.real = active[:, None]
        self.counts["decode"] += int(active.sum())

    def _see(self, module, args):
        self.ids += args[0][self.real].tolist()


@pytest.mark.parametrize("budget", [1, 7, 8, 60, 61, 333])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_budget_is_spent_exactly(budget, batch_size, source_of):
    model = load_model(source_of(), "cpu")
    recorder = Recorder(model)
    generation = Generation(
        model,
        random_prompts(7, 12, 4, 30, 9),
        Sampling(20, 1.0),
        batch_size=batch_size,
        observer=recorder,
        token_budget=budget,
    )
    traces = run(generation)
    assert generation.remaining == 0
    fed = [i for t in traces for i in t.fed_ids]
    assert len(fed) == budget == sum(recorder.counts.values())
    assert sorted(fed) == sorted(recorder.ids)
    assert recorder.counts["prompt"] == sum(len(t.prompt_ids) for t in traces)
    assert sorted(t.index for t in traces) == list(range(len(traces)))
    for trace in traces:
        ended = {
            "stop": trace.output_ids[-1:] == [END_ID],
            "length": len(trace.output_ids) == 20,
            "budget": True,
        }
        assert ended[trace.finish_reason]
        assert END_ID not in trace.output_ids[:-1] and len(trace.output_ids) <= 20
    assert any(t.finish_reason == "budget" for t in traces) or batch_size == 1


def test_few_traces_are_cut_by_the_budget(source_of):
    """Prompts are admitted only while the budget lasts for their whole traces."""
    options = {"batch_size": 100, "token_budget": 3000}
    prompts = random_prompts(7, 12, 4, 30, 9)
    model = load_model(source_of(), "cpu")
    traces = run(Generation(model, prompts, Sampling(20, 1.0), **options))
    cut = [t for t in traces if t.finish_reason == "budget"]
    assert len(traces) > 80 and len(cut) < 20  # refilled to the end, 100 would be cut
    assert sum(len(t.fed_ids) for t in traces) == 3000


def test_prompts_are_taken_round_and_round_for_a_budget(source_of):
    prompts = random_prompts(5, 6)
    sampling = Sampling(1)
    generation = Generation(
        load_model(source_of(), "cpu"), prompts, sampling, batch_size=2, token_budget=50
    )
    traces = sorted(run(generation), key=lambda t: t.index)
    assert [len(t.prompt_ids) for t in traces] == [5, 6] * 4 + [5, 1]
    assert all(t.prompt_ids == prompts[t.index % 2][: len(t.prompt_ids)] for t in traces)
