"""Decode steps whose layers are one call, inside models."""

import copy

import pytest
import torch
from conftest import build_model, count_calls
from test_fused_attention import decoded
from test_fused_layer import ARCHITECTURES, prepared

from rac.calibration import HessianCollector, find_groups
from rac.engines.attention import use_grouped_attention
from rac.engines.fused import fuse
from rac.engines.fused_decoder import FusedDecoder
from rac.engines.fused_step import fuse_step
from rac.engines.rotary import RotaryTable
from rac.engines.stacked import stack
from rac.packed.linears import Linear2to4, LinearBitmap

WHOLE = [name for name in ARCHITECTURES if name != "mistral"]  # its window is 16 tokens


@pytest.fixture
def steps(monkeypatch):
    return count_calls(monkeypatch, FusedDecoder, "_run")


@pytest.mark.parametrize("kind", [None, Linear2to4, LinearBitmap])
@pytest.mark.parametrize("architecture", WHOLE)
def test_the_same_tokens(architecture, kind, steps):
    expected = decoded(prepared(architecture, kind))
    model = prepared(architecture, kind, decoder=True)
    steps.clear()
    assert decoded(model) == expected
    assert steps


def test_a_step_gives_the_same_bits(steps):
    """Hidden states of every step, of rows of different lengths and of one row."""
    found = []
    for decoder in (False, True):
        model = prepared("qwen3", decoder=decoder)
        hidden = []
        model.lm_head.register_forward_pre_hook(lambda module, args, to=hidden: to.append(args[0]))
        decoded(model)
        found.append(hidden)
    assert steps and len(found[0]) == len(found[1])
    assert any(len(x) == 1 for x in found[0]) and any(len(x) == 3 for x in found[0])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("mistral", {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 100, "max_window_layers": 2}),
    ],
)
def test_layers_that_look_through_a_window_are_left_to_the_model(architecture, changes):
    model = prepared(architecture, decoder=True, **changes)
    assert not isinstance(model.model.forward, FusedDecoder)
    assert isinstance(
        prepared("mistral", decoder=True, sliding_window=256).model.forward, FusedDecoder
    )


def test_a_decoder_that_computes_something_else_is_left_alone():
    model = build_model("llama", hidden_size=64, intermediate_size=128)
    own = model.model.forward

    def scaled(**inputs):
        output = own(**inputs)
        output.last_hidden_state = output.last_hidden_state * 2
        return output

    model.model.forward = scaled
    model.to(torch.bfloat16)
    use_grouped_attention(model)
    stack(model)
    fuse(model)
    assert fuse_step(model) == {"attention": 3, "layer": 3, "decoder": 0}
    assert model.model.forward is scaled


INSIDE = ["layers.1.mlp.down_proj", "layers.2"]
BESIDE = ["", "embed_tokens", "norm", "rotary_emb"]  # these are called, or asked, in any case


@pytest.mark.parametrize("name", [*INSIDE, *BESIDE])
def test_hooks_see_every_step(name, steps):
    model = prepared("llama", decoder=True)
    steps.clear()
    expected = decoded(model)
    whole = len(steps)
    steps.clear()
    seen = []
    module = model.model.get_submodule(name)
    handle = module.register_forward_hook(lambda module, args, output: seen.append(1))
    forwards = []
    model.lm_head.register_forward_hook(lambda module, args, output: forwards.append(1))
    assert decoded(model) == expected
    assert len(seen) == len(forwards)
    assert len(steps) == (0 if name in INSIDE else whole)
    handle.remove()
    steps.clear()
    assert decoded(model) == expected
    assert len(steps) == whole


def test_hidden_states_that_are_asked_for_are_given(steps):
    model = prepared("llama", decoder=True)
    steps.clear()
    model.config.output_hidden_states = True
    decoded(model)
    assert not steps


@pytest.mark.parametrize("groups", [slice(None), slice(5, 7)])
def test_hessians_are_those_of_the_layers(groups, steps):
    found = []
    for decoder in (False, True):
        model = prepared("qwen3", decoder=decoder)
        collector = HessianCollector(model, find_groups(model)[groups])
        steps.clear()
        with collector.attached():
            decoded(model, observer=collector, token_budget=90)
        collector.finish()
        assert bool(steps) == decoder
        found.append(collector)
    assert found[0].tokens == found[1].tokens
    assert len(found[0].hessians) == len(range(12)[groups])
    for name in found[0].hessians:
        assert torch.equal(found[0].hessian(name), found[1].hessian(name)), name


@pytest.mark.parametrize("kind", [None, Linear2to4])
def test_what_changes_is_noticed(kind, steps):
    model, plain = (prepared("qwen2", kind, decoder=decoder) for decoder in (True, False))
    copied = copy.deepcopy(model)
    before = decoded(model)
    for changed in (model, plain):
        changed.model.norm.weight.data = torch.full((64,), 0.5).to(torch.bfloat16)
        layer = changed.model.layers[1]
        layer.input_layernorm.weight.data = torch.linspace(0, 2, 64).to(torch.bfloat16)
        layer.self_attn.o_proj = copy.deepcopy(changed.model.layers[0].self_attn.o_proj)
        changed.model.rotary_emb.inv_freq.mul_(0.3)
    assert decoded(model) == decoded(plain) != before
    for changed in (model, plain):
        changed.config.num_hidden_layers = 2
    steps.clear()
    assert decoded(model) == decoded(plain)
    assert not steps
    assert decoded(copied) == before


KINDS = ("default", "llama3", "linear", "yarn", "dynamic")


@pytest.mark.parametrize("kind", KINDS)
def test_rotations_are_those_of_the_module(kind):
    parameters = {"rope_type": kind, "rope_theta": 1e4}
    if kind != "default":
        parameters |= {"factor": 4.0, "original_max_position_embeddings": 64}
    if kind == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    module = build_model("llama", rope_parameters=parameters).model.rotary_emb
    table = RotaryTable(module)
    for dtype in (torch.bfloat16, torch.bfloat16, torch.float32):
        for last in (3, 255, 256, 1000):
            positions = torch.tensor([[0], [last // 2], [last]])
            x = torch.zeros(3, 1, 1, dtype=dtype)
            expected = [rows[:, 0] for rows in module(x, positions)]
            found = table(x, positions)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
            assert bool(table.rows) == (kind != "dynamic")
        module.inv_freq.mul_(0.5)
