"""The attention of a decode step as one kernel, inside models."""

import pytest
import torch
from conftest import ARCHITECTURES, build_model, count_calls

from rac.calibration import HessianCollector, find_groups
from rac.engines import Generation, Sampling
from rac.engines.attention import use_grouped_attention
from rac.engines.fused import fuse, producers
from rac.engines.fused_attention import FusedAttention
from rac.engines.fused_layer import FusedLayer
from rac.engines.fused_step import fuse_step
from rac.engines.stacked import stack
from rac.models import linears

# Attention modules of 3 layers (gemma: 4).
FUSED = {"llama": 3, "qwen2": 3, "qwen3": 3, "mistral": 3, "gemma2": 4, "gemma3": 4}
PROMPTS = [[5, 6, 7, 8, 9], [3, 4], [10, 11, 12], [20, 3, 4, 5]]


def prepared(architecture, dtype=torch.float32, fused=True):
    model = build_model(architecture).to(dtype)
    use_grouped_attention(model)
    stack(model)
    fuse(model)
    if fused:
        fuse_step(model)
    return model


def decoded(model, **options):
    generation = Generation(model, PROMPTS, Sampling(12, 0.8, seed=3), batch_size=3, **options)
    traces = []
    while not generation.done:
        traces += generation.step()
    return sorted((trace.index, trace.output_ids) for trace in traces)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_fused_decodes_the_same_tokens(architecture, dtype, monkeypatch):
    expected = decoded(prepared(architecture, dtype, fused=False))
    model = prepared(architecture, dtype)
    fused = [m for m in model.modules() if isinstance(m.forward, FusedAttention)]
    assert len(fused) == FUSED.get(architecture, 0)
    calls = count_calls(monkeypatch, FusedAttention, "decode")
    assert decoded(model) == expected
    whole = any(isinstance(m.forward, FusedLayer) for m in model.modules())
    assert bool(calls) == (bool(fused) and not whole)


def test_hessians_are_those_of_hooks():
    found = []
    for fused in (False, True):
        model = prepared("qwen3", fused=fused)
        groups = find_groups(model)
        collector = HessianCollector(model, groups)
        with collector.attached():
            decoded(model, observer=collector, token_budget=90)
        collector.finish()
        found.append(collector)
        assert not any(m._forward_pre_hooks for m in model.modules())
    assert found[0].tokens == found[1].tokens
    assert len(found[0].hessians) == 4 * 3
    for name in found[0].hessians:
        assert torch.equal(found[0].hessian(name), found[1].hessian(name)), name


def test_it_is_the_producer_of_what_o_proj_reads():
    model = prepared("llama")
    name = "model.layers.1.self_attn.o_proj"
    assert producers(model, {name: linears(model)[name]}) == {
        name: model.model.layers[1].self_attn.forward
    }


def test_a_module_that_computes_something_else_is_left_alone():
    model = build_model("llama")
    use_grouped_attention(model)
    modules = [layer.self_attn for layer in model.model.layers]
    own = type(modules[1]).forward
    modules[0].scaling *= 1.01  # read by both
    modules[1].forward = lambda *args, **kwargs: own(modules[1], *args, **kwargs | {"extra": 1})
    modules[2].forward = lambda *args, **kwargs: (
        own(modules[2], *args, **kwargs)[0] * (1 + 2.0**-20),
        None,
    )
    assert fuse_step(model)["attention"] == 2
    assert not isinstance(modules[2].forward, FusedAttention)


def test_eager_attention_and_other_caches_are_left_alone(monkeypatch):
    model = build_model("llama")
    assert fuse_step(model)["attention"] == 0  # not the grouped attention
    model = prepared("llama")
    calls = count_calls(monkeypatch, FusedAttention, "decode")
    model.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=3, do_sample=False)
    assert not calls
