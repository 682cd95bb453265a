"""When a decode step is recorded and replayed: a stand-in for CUDA graphs that checks addresses."""

import inspect

import pytest
import torch
from conftest import build_model
from test_engines import random_prompts, run
from triton_interpreter import INTERPRETED, sized

import rac.engines.step
from rac.calibration import HessianCollector, find_groups
from rac.engines import Generation, Sampling
from rac.engines.attention import use_grouped_attention
from rac.engines.fused import fuse
from rac.engines.stacked import stack
from rac.models import load_model


class Replay:
    """Runs the recorded function again, into the tensor of its first result."""

    def __init__(self, function, step, cache):
        self.function, self.step, self.cache = function, step, cache
        self.addresses = self.read()
        self.result = function()
        self.calls = 0

    def read(self):
        """Every address that a CUDA graph would have baked in."""
        buffers = [buffer for layer in self.cache.layers for buffer in layer.buffers]
        inputs = [self.step.inputs, self.cache.cursor]
        return [self.cache.window, *(t.data_ptr() for t in (*buffers, *inputs))]

    def replay(self):
        assert self.read() == self.addresses
        if self.calls:
            self.result.copy_(self.function())
        self.calls += 1


@pytest.fixture
def recorded(monkeypatch):
    """Steps are recorded as if there were CUDA graphs; the list of all recordings."""
    made = []

    def record(function, pool):
        variables = inspect.getclosurevars(function).nonlocals
        made.append(Replay(function, variables["self"], variables["cache"]))
        return made[-1], made[-1].result

    monkeypatch.setattr(rac.engines.step, "record", record)
    return made


def generation(model, static, **options):
    options = {"batch_size": 3, "token_budget": 900, "static": static} | options
    return Generation(model, random_prompts(40, 7, 3, 90, 20, 5, 33), Sampling(60, 1.0), **options)


def test_replayed_steps_decode_the_same(recorded, source_of):
    model = load_model(source_of("llama", dtype=torch.float32), "cpu")
    plain = run(generation(model, static=False))
    assert not recorded
    replaying = generation(model, static=True)
    replaying.decode_step.recordable = True
    assert run(replaying) == plain
    assert len(recorded) >= 3  # more than one window, and rows that came and went
    assert sum(r.calls for r in recorded) > 0.7 * len([t for x in plain for t in x.output_ids]) / 3


def test_replayed_steps_capture_the_same(recorded, source_of):
    model = load_model(source_of("llama", dtype=torch.float32), "cpu")
    groups = find_groups(model)
    sums = []
    for static in (False, True):
        collector = HessianCollector(model, groups)
        collector.slots = 32  # many flushes
        decoding = generation(model, static, observer=collector)
        decoding.decode_step.recordable = static
        with collector.attached():
            run(decoding)
        collector.finish()
        sums.append(collector)
    assert recorded and sums[0].tokens == sums[1].tokens
    for name in sums[0].hessians:
        torch.testing.assert_close(sums[0].hessian(name), sums[1].hessian(name))


def test_what_cannot_be_recorded_runs_eagerly(monkeypatch, source_of):
    model = load_model(source_of("llama", dtype=torch.float32), "cpu")
    tries = []
    monkeypatch.setattr(rac.engines.step, "record", lambda *arguments: tries.append(1))
    decoding = generation(model, static=True)
    decoding.decode_step.recordable = True
    assert run(decoding) == run(generation(model, static=False))
    assert len(tries) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_graphs_decode_and_capture_as_eager_steps(architecture, dtype, monkeypatch):
    smaller = {"num_hidden_layers": 1} if INTERPRETED else {}
    model = build_model(architecture, **smaller).to("cuda", dtype)
    use_grouped_attention(model)
    stack(model)
    fuse(model)
    made = []
    own = rac.engines.step.record
    monkeypatch.setattr(rac.engines.step, "record", lambda *a: made.append(own(*a)) or made[-1])
    groups = find_groups(model)
    found = []
    for recordable in (False, True):
        collector = HessianCollector(model, groups)
        decoding = generation(model, True, observer=collector, token_budget=sized(2000, 80))
        decoding.decode_step.recordable = recordable
        with collector.attached():
            traces = run(decoding)
        collector.finish()
        assert bool(made) == recordable and None not in made
        found.append((traces, collector))
    assert found[0][0] == found[1][0]
    assert found[0][1].tokens == found[1][1].tokens
    for name in found[0][1].hessians:
        torch.testing.assert_close(found[0][1].hessian(name), found[1][1].hessian(name))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_forward_that_waits_for_the_device_runs_eagerly(caplog):
    model = build_model("llama").to("cuda")
    use_grouped_attention(model)
    expected = run(generation(model, False))
    model.model.norm.register_forward_hook(
        lambda module, args, output: output.sum().item() and None
    )
    stream = torch.cuda.current_stream()
    assert run(generation(model, True)) == expected
    assert caplog.text.count("without a CUDA graph") == 1
    assert torch.cuda.current_stream() == stream
