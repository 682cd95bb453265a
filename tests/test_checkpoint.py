"""The checkpoint: the source's own files, new numbers in the pruned tensors, all or nothing."""

import errno
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import read_tensors, save_source
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import rac.checkpoint
from rac.checkpoint import source_shards, stored_names, weight_dtypes, write_checkpoint
from rac.errors import UserError
from rac.models import get_weight, linears, load_model

NAME = "model.layers.1.mlp.up_proj"


def new_weight(folder: Path, model, name: str = NAME) -> dict[str, Path]:
    """A new weight for one linear, as the pruning stage leaves it on disk."""
    weight = get_weight(linears(model)[name])
    generator = torch.Generator().manual_seed(5)
    new = torch.randn(weight.shape, generator=generator).to(torch.bfloat16)
    save_file({name: new}, folder / "layer.safetensors")
    return {name: folder / "layer.safetensors"}


def write(out, source, pruned, transposed=(), **extra):
    model = load_model(source, "cpu")
    write_checkpoint(out, source, model, pruned, set(transposed), extra)


@pytest.mark.parametrize("max_shard_size", ["1GB", "15KB"])
def test_only_the_named_tensor_changes(max_shard_size, source_of, tmp_path):
    source = source_of(max_shard_size=max_shard_size)
    pruned = new_weight(tmp_path, load_model(source, "cpu"))
    write(tmp_path / "out", source, pruned, **{"a.json": {"x": 1}, "b.yaml": "y: 2\n"})
    before, after = read_tensors(source), read_tensors(tmp_path / "out")
    assert {n for n in before if not torch.equal(before[n], after[n])} == {f"{NAME}.weight"}
    assert torch.equal(after[f"{NAME}.weight"], load_file(pruned[NAME])[NAME])
    assert json.loads((tmp_path / "out" / "a.json").read_text()) == {"x": 1}
    assert (tmp_path / "out" / "b.yaml").read_text() == "y: 2\n"
    for shard in source_shards(source):
        copy = tmp_path / "out" / shard.name
        assert copy.stat().st_size == shard.stat().st_size
        with safe_open(shard, "pt") as a, safe_open(copy, "pt") as b:
            assert a.metadata() == b.metadata() and list(a.keys()) == list(b.keys())


def test_transposed_weights_are_stored_as_the_source_does(source_of, tmp_path):
    source, name = source_of("gpt2"), "transformer.h.0.mlp.c_fc"
    pruned = new_weight(tmp_path, load_model(source, "cpu"), name)
    write(tmp_path / "out", source, pruned, [name])
    stored = read_tensors(tmp_path / "out")[f"{name}.weight"]
    assert torch.equal(stored, load_file(pruned[name])[name].T)


def test_older_names_without_the_base_prefix(tmp_path):
    """Published GPT-2 checkpoints say h.0.mlp.c_fc.weight, not transformer.h.0..."""
    source = save_source(tmp_path / "source", "gpt2")
    tensors = load_file(source / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(old, source / "model.safetensors", metadata={"format": "pt"})
    model, name = load_model(source, "cpu"), "transformer.h.0.mlp.c_fc"
    assert stored_names(model, source)[name] == "h.0.mlp.c_fc.weight"
    write(tmp_path / "out", source, new_weight(tmp_path, model, name), [name])
    after = read_tensors(tmp_path / "out")
    assert after.keys() == old.keys()
    assert {n for n in old if not torch.equal(old[n], after[n])} == {"h.0.mlp.c_fc.weight"}


def test_names_that_transformers_converts_on_loading(source_of, tmp_path, monkeypatch):
    """Where a linear's tensor is not found by name, the model itself is loaded, set and saved."""
    source = source_of("qwen2")
    pruned = new_weight(tmp_path, load_model(source, "cpu"))
    monkeypatch.setattr(rac.checkpoint, "stored_names", lambda model, source: None)
    write(tmp_path / "out", source, pruned)
    before = AutoModelForCausalLM.from_pretrained(source, dtype="auto").state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").state_dict()
    assert {n for n in before if not torch.equal(before[n], after[n])} == {f"{NAME}.weight"}
    assert {t.dtype for t in after.values()} == {torch.bfloat16}


def test_nothing_is_left_of_a_write_that_fails(source_of, tmp_path, monkeypatch):
    source = source_of(max_shard_size="15KB")
    pruned = new_weight(tmp_path, load_model(source, "cpu"))
    write(tmp_path / "out", source, pruned)
    kept = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    saved = []

    def save_until_full(tensors, path, metadata=None):
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        saved.append(path)
        safetensors.torch.save_file(tensors, path, metadata)

    monkeypatch.setattr(rac.checkpoint, "save_file", save_until_full)
    with pytest.raises(UserError, match="cannot write .*out: the disk is full"):
        write(tmp_path / "out", source, pruned)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == kept
    assert sorted(os.listdir(tmp_path)) == ["layer.safetensors", "out"]


def test_dtypes_are_read_from_the_shards(source_of):
    dtypes = weight_dtypes(source_of(dtype=torch.float16, max_shard_size="15KB"), torch.float32)
    assert set(dtypes.values()) == {torch.float16} and f"{NAME}.weight" in dtypes


def test_missing_and_damaged_shards(tmp_path):
    source = save_source(tmp_path / "source", max_shard_size="15KB")
    shard = source_shards(source)[1]
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"cannot read .*{shard.name}: .*; download it again"):
        weight_dtypes(source, torch.float32)
    with pytest.raises(UserError, match="cannot load the model in"):
        load_model(source, "cpu")
    shard.unlink()
    with pytest.raises(UserError, match=f"is incomplete: {shard.name} of its index is missing"):
        source_shards(source)


def test_a_checkpoint_without_one_of_its_tensors(tmp_path):
    """transformers would fill it with random numbers."""
    source = save_source(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    del tensors[f"{NAME}.weight"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"is incomplete: it has no tensor {NAME}.weight"):
        load_model(source, "cpu")
