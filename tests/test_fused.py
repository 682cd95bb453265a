"""Fused and stacked forwards against the modules' own, and what they hand to a collector."""

import copy

import pytest
import torch
from conftest import ARCHITECTURES, build_model

from rac.calibration import find_groups
from rac.engines.fused import FusedMLP, FusedNorm, fuse, producers
from rac.engines.stacked import PackedWeights, StackedPacked, stack
from rac.models import linears
from rac.packed.linears import Linear2to4, Linear2to4FP8, LinearBitmap
from rac_kernels import Pattern, magnitude

# Norms and MLPs that are fused, of 3 layers (gemma: 4) and the final norm.
FUSED = {"llama": (7, 3), "qwen2": (7, 3), "qwen3": (13, 3), "mistral": (7, 3)}
STACKED = {"llama": 6, "qwen2": 6, "qwen3": 6, "mistral": 6, "phi": 3, "opt": 3, "gemma2": 8}
STACKED["gemma3"] = 8
IDS = torch.arange(3, 23)[None]


def fused_forwards(model, kind) -> list:
    return [m.forward for m in model.modules() if isinstance(m.forward, kind)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_fused_and_that_outputs_stay(architecture):
    model = build_model(architecture)
    before = model(IDS).logits
    fuse(model)
    counts = len(fused_forwards(model, FusedNorm)), len(fused_forwards(model, FusedMLP))
    assert counts == FUSED.get(architecture, (0, 0))
    torch.testing.assert_close(model(IDS).logits, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", FUSED)
def test_one_ulp_of_bf16(architecture):
    """Each fused module on bf16 rows: at most one rounding of bf16 from its own forward."""
    model = build_model(architecture).to(torch.bfloat16)
    fuse(model)
    for fused in fused_forwards(model, FusedNorm):
        x = torch.randn(50, len(fused.module.weight)).to(torch.bfloat16)
        own, ours = fused.own(x).float(), fused(x).float()
        # one ulp of the normed value, then of the product with the weight
        assert ((own - ours).abs() <= 2 * 2.0**-8 * own.abs()).all()


def test_a_module_that_computes_something_else_is_left_alone():
    model = build_model("llama")
    norm = model.model.layers[1].input_layernorm
    own = type(norm).forward
    norm.forward = lambda x: own(norm, x) * 1.01
    model.model.layers[0].mlp.act_fn = torch.nn.ReLU()
    fuse(model)
    assert not isinstance(norm.forward, FusedNorm)
    assert not isinstance(model.model.layers[0].mlp.forward, FusedMLP)
    assert len(fused_forwards(model, FusedNorm)) == 6


def test_producers_are_found_by_what_they_hand_over():
    model = build_model("qwen3")
    fuse(model)
    groups = find_groups(model)
    modules = linears(model)
    found = producers(model, {g.name: modules[g.name] for g in groups})
    layers = model.model.layers
    expected = {}
    for index, layer in enumerate(layers):
        prefix = f"model.layers.{index}"
        expected[f"{prefix}.self_attn.q_proj"] = layer.input_layernorm.forward
        expected[f"{prefix}.mlp.gate_proj"] = layer.post_attention_layernorm.forward
        expected[f"{prefix}.mlp.down_proj"] = layer.mlp.forward
    assert found == expected  # o_proj's input is made by the attention
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_wider_dtype_takes_the_modules_own_forward():
    model = build_model("llama")
    truth = copy.deepcopy(model).double()(IDS).logits
    stack(model)
    fuse(model)
    assert torch.equal(model.double()(IDS).logits, truth)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stacked_linears_share_one_product(architecture):
    model = build_model(architecture)
    before = model(IDS).logits
    weights = {name: p.clone() for name, p in model.named_parameters()}
    assert sum(len(s.linears) > 1 for s in stack(model)) == STACKED.get(architecture, 0)
    torch.testing.assert_close(model(IDS).logits, before, rtol=1e-4, atol=1e-4)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name]), name


def test_a_stacked_weight_may_be_overwritten_in_place():
    model = build_model("qwen2")
    stack(model)
    attention = model.model.layers[1].self_attn
    attention.k_proj.weight.data.zero_()
    attention.k_proj.bias.data.zero_()
    x = torch.randn(1, 5, 32)
    assert (attention.k_proj(x) == 0).all() and (attention.v_proj(x) != 0).any()
    fresh = torch.randn_like(attention.v_proj.weight)
    attention.v_proj.weight.data = fresh  # no longer in the stack: computed alone
    expected = torch.nn.functional.linear(x, fresh, attention.v_proj.bias)
    torch.testing.assert_close(attention.v_proj(x), expected)


def packed_attention(kind, pattern):
    """The attention of a pruned model, with its own and with packed linears, biases included."""
    model = build_model("qwen2").to(torch.bfloat16)
    attention = model.model.layers[1].self_attn
    for name in ("q_proj", "k_proj", "v_proj"):
        rows = 64 if name == "q_proj" else 32  # 2:4 pads rows to a multiple of 32
        weight = torch.randn(rows, 64, generator=torch.Generator().manual_seed(rows))
        weight = magnitude(weight.to(torch.bfloat16), Pattern.parse(pattern))[0]
        bias = torch.nn.Parameter(torch.randn(rows).to(torch.bfloat16), requires_grad=False)
        setattr(attention, name, kind(kind.pack(weight), bias))
    return model, attention


@pytest.mark.parametrize(
    ("kind", "pattern"), [(Linear2to4, "2:4"), (Linear2to4FP8, "2:4"), (LinearBitmap, "0.5")]
)
def test_packed_siblings_share_one_product(kind, pattern):
    model, attention = packed_attention(kind, pattern)
    modules = [attention.q_proj, attention.k_proj, attention.v_proj]
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    before = [module(x) for module in modules]
    dense = [kind.unpack(module.packed) for module in modules]
    (joined,) = [s for s in stack(model) if isinstance(s, StackedPacked)]
    calls = []
    joined.joint.register_forward_pre_hook(lambda *args: calls.append(1))
    for _ in range(2):
        after = [module(x) for module in modules]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert len(calls) == 2
    values = joined.joint.weight_values
    for module, weight in zip(modules, dense, strict=True):
        assert torch.equal(kind.unpack(module.packed).float(), weight.float())
        start = module.weight_values.data_ptr() - values.data_ptr()
        assert 0 <= start < values.nbytes  # nothing is held twice
    modules[1].bias.data.zero_()  # a view of the joint one
    assert torch.equal(modules[1](x) + 0, kind.forward(modules[1], x))
    modules[2].load_state_dict(modules[2].state_dict())  # may be another weight: computed alone
    calls.clear()
    assert torch.equal(modules[2](x), before[2]) and calls == []
    model.float()
    torch.testing.assert_close(modules[0](x.float()), before[0].float(), rtol=0.02, atol=0.02)


def test_packed_siblings_of_two_formats_stay_apart():
    model, attention = packed_attention(Linear2to4, "2:4")
    weight = Linear2to4.unpack(attention.k_proj.packed)
    attention.k_proj = LinearBitmap(LinearBitmap.pack(weight), attention.k_proj.bias)
    assert not any(isinstance(s, StackedPacked) for s in stack(model))


def test_hooks_on_stacked_linears_see_every_call():
    model = build_model("llama")
    stack(model)
    seen = []
    for name, module in linears(model).items():
        module.register_forward_pre_hook(lambda module, args, name=name: seen.append(name))
    model(IDS)
    assert sorted(seen) == sorted(linears(model))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_weights_give_the_same_and_only_while_in_use(architecture):
    model = build_model(architecture)
    before = model(IDS).logits
    stacks = stack(model)
    packed = PackedWeights(model)
    assert len(packed.stacks) == len(stacks) > 0
    with packed.in_use():
        assert all(stacked.packed is not None for stacked in stacks)
        torch.testing.assert_close(model(IDS).logits, before, rtol=1e-4, atol=1e-4)
    assert all(stacked.packed is None for stacked in stacks)


def test_only_float32_is_packed():
    model = build_model("llama").to(torch.bfloat16)
    stack(model)
    assert not PackedWeights(model).stacks
