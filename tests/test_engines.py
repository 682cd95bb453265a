"""Generation against transformers' own greedy decoding; draws; a generation that is restored."""

import io

import pytest
import torch
from conftest import ARCHITECTURES, CONTEXT, END_ID, VOCABULARY, build_model
from transformers import AutoModelForCausalLM

from rac.calibration import HessianCollector, find_groups
from rac.engines import Generation, Sampling, generate
from rac.engines.attention import use_grouped_attention
from rac.errors import UserError
from rac.models import load_model


def random_prompts(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def run(generation: Generation) -> list:
    traces = []
    while not generation.done:
        traces += generation.step()
    return traces


def greedy_truth(model, prompt: list[int], max_new_tokens: int) -> list[int]:
    """transformers' greedy continuation of one prompt alone, cut at the context's end."""
    new = min(max_new_tokens, CONTEXT - len(prompt))
    options = {"do_sample": False, "temperature": None, "max_new_tokens": new}
    with torch.inference_mode():
        ids = torch.tensor([prompt])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return output[0, len(prompt) :].tolist()


# Long prompts come late: they are wider than the cache when they take over a slot.
LENGTHS = (3, 5, 4, 9, 70, 6, 2, 110)
STOPS = list(range(END_ID, VOCABULARY, 12))  # so many that traces end at different steps


@pytest.mark.parametrize("batch_size, static", [(1, False), (3, False), (16, False), (3, True)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_equals_transformers(architecture, batch_size, static, source_of):
    source = source_of(architecture, dtype=torch.float32)
    truth = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model, sampling = load_model(source, "cpu"), Sampling(30, temperature=0)
    truth.generation_config.eos_token_id = model.generation_config.eos_token_id = STOPS
    prompts = random_prompts(*LENGTHS)
    traces = run(Generation(model, prompts, sampling, batch_size=batch_size, static=static))
    assert sorted(t.index for t in traces) == list(range(len(prompts)))
    for trace in traces:
        assert trace.prompt_ids == prompts[trace.index]
        assert trace.output_ids == greedy_truth(truth, trace.prompt_ids, 30)
        stopped = trace.output_ids[-1] in STOPS
        assert trace.finish_reason == ("stop" if stopped else "length")


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("architecture", ["mistral", "opt"])
def test_columns_are_dropped_and_the_context_ends_a_trace(architecture, static, source_of):
    source = source_of(architecture, dtype=torch.float32)
    truth = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    prompts = random_prompts(9, 100, 4, 60, 8, 30, seed=1)
    model = load_model(source, "cpu")
    options = {"batch_size": 2, "static": static}
    generation = Generation(model, prompts, Sampling(10_000, temperature=0), **options)
    generation.schedule.stop_ids = set()
    truth.generation_config.eos_token_id = None
    traces, widest, steps = [], 0, 0
    while not generation.done:
        traces += generation.step()
        widest, steps = max(widest, generation.cache.used), steps + 1
    assert steps > 2 * CONTEXT and widest < CONTEXT + 64  # two rows in turn, yet never wider
    for trace in traces:
        assert trace.finish_reason == "length"
        assert len(trace.prompt_ids) + len(trace.output_ids) == CONTEXT
        assert trace.output_ids == greedy_truth(truth, trace.prompt_ids, 10_000)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("architecture", ["gpt2", "opt"])
def test_free_rows_do_not_run_out_of_positions(architecture, static, source_of):
    """A long trace ends early; its row stays free, counting, while the short ones go on."""
    source = source_of(architecture, dtype=torch.float32)
    truth = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    truth.generation_config.eos_token_id = None
    prompts = random_prompts(200, *[160] * 7)
    model = load_model(source, "cpu")
    options = {"batch_size": 8, "static": static}
    generation = Generation(model, prompts, Sampling(10_000, temperature=0), **options)
    generation.schedule.stop_ids = set()
    for trace in run(generation):
        assert trace.output_ids == greedy_truth(truth, trace.prompt_ids, 10_000)


def test_dynamic_rope_sees_no_position_of_a_free_row(source_of):
    """Its base depends on the longest position of the batch."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    changes = {"rope_parameters": rope, "max_position_embeddings": 64}
    model = build_model("llama", **changes)
    use_grouped_attention(model)
    prompts = random_prompts(50, *[20] * 7)

    def outputs(batch):
        sampling = Sampling(30, temperature=0)
        return [t.output_ids for t in run(Generation(model, batch, sampling, batch_size=8))]

    together = outputs(prompts)
    assert sorted(together) == sorted(outputs([p])[0] for p in prompts)


def test_seeds(source_of):
    model = load_model(source_of(), "cpu")

    def sample(seed):
        sampling = Sampling(30, 1.0, 0.95, seed)
        return [(t.index, t.output_ids) for t in generate(model, random_prompts(4, 8, 5), sampling)]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_draws_do_not_depend_on_the_batch(source_of):
    model = load_model(source_of("llama", dtype=torch.float32), "cpu")
    prompts = random_prompts(4, 8, 5, 30, 6, 9)

    def sample(numbers, batch_size, **seeds):
        chosen = [prompts[n] for n in numbers]
        traces = generate(model, chosen, Sampling(30, 1.0, seed=3), batch_size=batch_size, **seeds)
        return {numbers[t.index]: t.output_ids for t in traces}

    assert sample(range(6), 6) == sample(range(6), 2) == sample(range(6), 1)
    seeds = [7, 8, 9, 7, 8, 9]
    together = sample(range(6), 4, seeds=seeds)
    for number, ids in together.items():
        assert sample([number], 1, seeds=[seeds[number]]) == {number: ids}
    assert sample([0], 1, seeds=[8]) != {0: together[0]}


def through_a_file(state):
    """What torch.save and torch.load make of a state."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    "architecture, static", [("llama", False), ("llama", True), ("gemma3", False), ("gpt2", False)]
)
@pytest.mark.parametrize("stop_after", [1, 13, 40, 97])
def test_restored_generation_gives_the_same_bits(architecture, static, stop_after, source_of):
    model = load_model(source_of(architecture), "cpu")
    groups = find_groups(model)

    def make():
        collector = HessianCollector(model, groups)
        prompts = random_prompts(40, 7, 3, 90, 20, 5, 33)
        options = {"batch_size": 3, "observer": collector, "token_budget": 900, "static": static}
        return Generation(model, prompts, Sampling(60, 1.0), **options), collector

    def finish(generation, collector):
        with collector.attached():
            traces = run(generation)
        collector.finish()
        return traces, collector

    straight, all_hessians = finish(*make())
    generation, collector = make()
    first = []
    with collector.attached():
        for _ in range(stop_after):
            first += generation.step()
    state = through_a_file([generation.state_dict(), collector.state_dict()])
    generation, collector = make()
    generation.load_state_dict(state[0])
    collector.load_state_dict(state[1])
    second, hessians = finish(generation, collector)
    assert first + second == straight
    assert hessians.tokens == all_hessians.tokens
    for name, hessian in all_hessians.hessians.items():
        assert torch.equal(hessians.hessians[name].data, hessian.data), name


def test_taking_a_state_changes_nothing(source_of):
    model = load_model(source_of(), "cpu")

    def outputs(snapshots: bool):
        generation = Generation(model, random_prompts(9, 4), Sampling(30, 1.0), batch_size=1)
        traces = []
        while not generation.done:
            traces += generation.step()
            if snapshots:
                through_a_file(generation.state_dict())
        return traces

    assert outputs(True) == outputs(False)


def test_no_prompts_gives_no_traces(source_of):
    assert list(generate(load_model(source_of(), "cpu"), [], Sampling(5))) == []


@pytest.mark.parametrize("prompt", [[], [5] * CONTEXT])
def test_prompts_that_leave_nothing_to_decode_are_refused(prompt, source_of):
    with pytest.raises(UserError, match="prompt 1"):
        list(generate(load_model(source_of(), "cpu"), [[4], prompt], Sampling(5)))
