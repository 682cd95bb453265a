"""Whole decoder layers of decode steps in one call, inside models."""

import copy

import pytest
import torch
from conftest import build_model, count_calls
from test_fused_attention import decoded

from rac.calibration import HessianCollector, find_groups
from rac.engines.attention import use_grouped_attention
from rac.engines.fused import fuse
from rac.engines.fused_decoder import FusedDecoder
from rac.engines.fused_layer import FusedLayer
from rac.engines.fused_step import fuse_step
from rac.engines.stacked import stack
from rac.models import linears
from rac.packed.linears import Linear2to4, LinearBitmap
from rac_kernels import Pattern, magnitude

ARCHITECTURES = ["llama", "qwen2", "qwen3", "mistral"]
PATTERNS = {Linear2to4: "2:4", LinearBitmap: "0.5"}


def prepared(architecture, kind=None, fused=True, leave=(), decoder=False, **changes):
    """In bf16, all linears packed as `kind`, but for those whose name ends as in `leave`.

    Without `decoder` layers are called one by one, as where the decoder is not fused.
    """
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    model = build_model(architecture, **sizes | changes).to(torch.bfloat16)
    for name, linear in linears(model).items() if kind is not None else ():
        if not name.endswith(leave) or not leave:
            weight = magnitude(linear.weight, Pattern.parse(PATTERNS[kind]))[0]
            model.set_submodule(name, kind(kind.pack(weight), linear.bias))
    use_grouped_attention(model)
    stack(model)
    fuse(model)
    if fused:
        fuse_step(model)
    if isinstance(model.model.forward, FusedDecoder) and not decoder:
        model.model.forward = model.model.forward.own
    return model


def fused_layers(model):
    return [m.forward for m in model.modules() if isinstance(m.forward, FusedLayer)]


@pytest.fixture
def steps(monkeypatch):
    return count_calls(monkeypatch, FusedLayer, "decode")


@pytest.mark.parametrize("kind", [None, Linear2to4, LinearBitmap])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_tokens(architecture, kind, steps):
    expected = decoded(prepared(architecture, kind, fused=False))
    model = prepared(architecture, kind)
    assert len(fused_layers(model)) == 3
    steps.clear()
    assert decoded(model) == expected
    assert steps


def test_siblings_in_two_formats_and_float32_are_left_to_their_modules():
    model = prepared("qwen2", Linear2to4, leave=("k_proj",))
    assert not fused_layers(model)
    model = build_model("qwen2")
    use_grouped_attention(model)
    stack(model)
    fuse(model)
    assert fuse_step(model) == {"attention": 3, "layer": 0, "decoder": 0}


def test_hessians_are_those_of_the_modules(steps):
    found = []
    for fused in (False, True):
        model = prepared("qwen3", fused=fused)
        collector = HessianCollector(model, find_groups(model))
        steps.clear()
        with collector.attached():
            decoded(model, observer=collector, token_budget=90)
        collector.finish()
        assert bool(steps) == fused
        found.append(collector)
    assert found[0].tokens == found[1].tokens and len(found[0].hessians) == 12
    for name in found[0].hessians:
        assert torch.equal(found[0].hessian(name), found[1].hessian(name)), name


def test_hooks_inside_see_every_step(steps):
    model = prepared("llama")
    seen = []
    module = model.model.layers[1].mlp.down_proj
    handle = module.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    steps.clear()
    decoded(model)
    inside = len(steps)
    decode_steps = [shape for shape in seen if shape[1] == 1]
    assert len(decode_steps) == inside // 2  # the other two layers' steps
    handle.remove()
    steps.clear()
    decoded(model)
    assert len(steps) == inside * 3 // 2


def test_a_copy_of_a_model_has_its_own_weights():
    model = prepared("qwen2", Linear2to4)
    expected = decoded(model)
    copied = copy.deepcopy(model)
    model.model.layers[0].input_layernorm.weight.zero_()
    assert decoded(copied) == expected  # its linears are no longer joined: module by module
    assert decoded(model) != expected


@pytest.mark.parametrize("kind", [None, Linear2to4])
def test_weights_that_change_are_noticed(kind, steps):
    model, plain = (prepared("qwen2", kind, fused=fused) for fused in (True, False))
    assert decoded(model) == decoded(plain)
    for changed in (model, plain):
        layer = changed.model.layers[1]
        generator = torch.Generator().manual_seed(3)
        weight = torch.randn(64, 128, generator=generator).to(torch.bfloat16)
        if kind is None:
            layer.mlp.down_proj.weight.data = weight
        else:
            pruned = magnitude(weight, Pattern.parse("2:4"))[0]
            layer.mlp.down_proj = kind(kind.pack(pruned), None)
        layer.post_attention_layernorm.weight.data = torch.full((64,), 0.5).to(torch.bfloat16)
    assert decoded(model) == decoded(plain)
