"""Every supported architecture, end to end: groups found, linears pruned, nothing else touched."""

from pathlib import Path

import pytest
import torch
from conftest import ARCHITECTURES, build_model, read_tensors
from transformers import AutoModelForCausalLM, AutoTokenizer

from rac.calibration import find_groups
from rac.errors import UserError
from rac.models import decoder_layers, linears, load_model, load_tokenizer, pick_device
from rac.recipe import Recipe
from rac.run import prune

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATED = (_QKV, ("self_attn.o_proj",), ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",))
# What reads the same input in layer 0, as published in each architecture's own description.
GROUPS = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3"), _GATED),
    "phi": ((*_QKV, "mlp.fc1"), ("self_attn.dense",), ("mlp.fc2",)),
    "gpt_neox": (
        ("attention.query_key_value",),
        ("attention.dense",),
        ("mlp.dense_h_to_4h",),
        ("mlp.dense_4h_to_h",),
    ),
    "opt": (_QKV, ("self_attn.out_proj",), ("fc1",), ("fc2",)),
    "gpt2": (("attn.c_attn",), ("attn.c_proj",), ("mlp.c_fc",), ("mlp.c_proj",)),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_groups_of_shared_inputs(architecture):
    model = build_model(architecture)
    prefix, layers = decoder_layers(model)
    groups = find_groups(model)
    expected = {
        (layer, tuple(f"{prefix}.{layer}.{name}" for name in names))
        for layer in range(len(layers))
        for names in GROUPS[architecture]
    }
    assert {(group.layer, group.linears) for group in groups} == expected
    assert sorted(name for g in groups for name in g.linears) == sorted(linears(model))
    widths = {name: module.weight.shape for name, module in linears(model).items()}
    for group in groups:
        shape = widths[group.linears[0]]
        assert group.in_features == shape[0 if architecture == "gpt2" else 1]
        assert group.hessian_bytes == 4 * group.in_features**2


def test_groups_keep_only_wanted_names():
    model = build_model("llama")
    wanted = {"model.layers.1.self_attn.v_proj", "model.layers.1.mlp.up_proj"}
    groups = find_groups(model, wanted)
    assert [(g.name, g.linears) for g in groups] == [(n, (n,)) for n in sorted(wanted)[::-1]]


def check_result(source: Path, result: Path, sparsity: float = 0.5) -> None:
    """The result is the source but for exactly the right number of zeros in each linear."""
    model, info = AutoModelForCausalLM.from_pretrained(
        result, dtype="auto", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    modules = linears(model)
    for name, module in modules.items():
        zeros = int((module.weight == 0).sum())
        assert zeros == round(sparsity * module.weight.numel()), name
    before, after = read_tensors(source), read_tensors(result)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype and after[name].shape == tensor.shape
        is_pruned = name.removesuffix(".weight") in modules
        same = torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8))
        assert same != is_pruned, name
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            assert (result / file.name).read_bytes() == file.read_bytes(), file.name
    shards = [p.name for p in sorted(source.glob("*.safetensors"))]
    assert [p.name for p in sorted(result.glob("*.safetensors"))] == shards


@pytest.mark.parametrize("collector", ["decode", "replay"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prune_end_to_end(architecture, collector, source_of, tmp_path):
    source = source_of(architecture)
    recipe = Recipe(
        model=str(source), tokens=500, max_new_tokens=40, batch_size=3, collector=collector
    )
    result = prune(recipe, tmp_path / "run", quiet=True)
    check_result(source, result)
    assert AutoTokenizer.from_pretrained(result).get_vocab() == load_tokenizer(source).get_vocab()
    model = AutoModelForCausalLM.from_pretrained(result)
    assert model.generation_config.temperature == 0.7
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == model.config.tie_word_embeddings


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_shards_and_dtype_of_the_source(architecture, dtype, source_of, tmp_path):
    source = source_of(architecture, dtype=dtype, max_shard_size="20KB")
    assert len(list(source.glob("*.safetensors"))) > 3
    recipe = Recipe(model=str(source), calibration="text", tokens=300, pattern="2:4")
    check_result(source, prune(recipe, tmp_path / "run", quiet=True))


def test_load_model_computes_in_float32_on_a_cpu(source_of):
    source = source_of("llama")
    assert load_model(source, "cpu").dtype == torch.float32
    assert load_model(source, "cpu", "bfloat16").dtype == torch.bfloat16


def test_grouped_attention_gives_the_logits_of_plain_transformers(source_of):
    """The decode step's own attention against transformers' on the same cache-free tokens."""
    source = source_of("gemma2", dtype=torch.float32)
    ids = torch.randint(7, 90, (2, 40), generator=torch.Generator().manual_seed(0))
    plain = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    ours = load_model(source, "cpu")
    with torch.inference_mode():
        expected = plain(input_ids=ids).logits[:, -1]
        past = ours(input_ids=ids[:, :-1], use_cache=True).past_key_values
        got = ours(input_ids=ids[:, -1:], past_key_values=past).logits[:, -1]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", ["meta", "cuda:77", "toaster"])
def test_impossible_devices_are_refused(device):
    with pytest.raises(UserError, match=f"--device {device}"):
        pick_device(device)


def test_no_decoder_layers_is_a_clear_error():
    model = build_model("llama")
    model.config.num_hidden_layers = 17
    with pytest.raises(UserError, match="no list of 17 decoder layers"):
        decoder_layers(model)
