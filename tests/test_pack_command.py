"""`rac pack`: what is packed, what stays, sizes, shards, and that a failure leaves nothing."""

import errno
import json
import os
import shutil

import pytest
import torch
from conftest import arguments, read_tensors, refused, save_source
from packing import embedded, prune_folder
from safetensors.torch import load_file, save_file

from rac.packed.pack import pack
from rac_kernels import Packed2to4, PackedBitmap, unpack_2to4, unpack_bitmap

UP = "model.layers.1.mlp.up_proj"


def unpacked(tensors: dict, name: str, columns: int, rows: int) -> torch.Tensor:
    """The dense weight of a packed linear, by the ops' own inverse."""
    part = {k.rpartition("weight_")[2]: v for k, v in tensors.items() if k.startswith(f"{name}.w")}
    if "bitmap" in part:
        return unpack_bitmap(PackedBitmap(**part, columns=columns))
    return unpack_2to4(Packed2to4(part["values"], part["metadata"], rows))


def refused_pack(rac, source, flags: dict) -> str:
    code, out, err = rac("pack", source, *arguments(flags | {"quiet": True})[1:])
    assert code == 2 and out == [] and len(err) == 1, (code, out, err)
    return err[0]


def config_of(folder) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_all_of_a_2to4_model(rac, tmp_path):
    source = embedded(tmp_path / "source")
    code, out, err = rac("pack", source, "--out", tmp_path / "packed", "--quiet")
    assert (code, err) == (0, [])
    assert out[0].split() == ["28", "linears", "as", "2:4", "6.29", "->", "3.54", "MB", "0.5625x"]
    assert out[-1] == f"checkpoint: {tmp_path / 'packed'}"
    before, after = read_tensors(source), read_tensors(tmp_path / "packed")
    linears = config_of(tmp_path / "packed")["quantization_config"]["linears"]
    assert len(linears) == 28
    for name, entry in linears.items():
        weight = before.pop(f"{name}.weight")
        assert f"{name}.weight" not in after and entry["shape"] == list(weight.shape)
        assert torch.equal(unpacked(after, name, weight.shape[1], weight.shape[0]), weight)
        assert after.pop(f"{name}.weight_values").nbytes * 2 == weight.nbytes
        assert after.pop(f"{name}.weight_metadata").nbytes * 16 == weight.nbytes
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    names = {path.name for path in source.iterdir()}
    assert {path.name for path in (tmp_path / "packed").iterdir()} == names
    for name in names - {"config.json", "model.safetensors"}:
        assert (tmp_path / "packed" / name).read_bytes() == (source / name).read_bytes()
    rest = config_of(tmp_path / "packed")
    del rest["quantization_config"]
    assert rest == config_of(source)


def test_half_of_the_weights_as_a_bitmap(tmp_path):
    source = embedded(tmp_path / "source", "0.5")
    summary = pack(source, tmp_path / "packed")
    count, before, after = summary.packed["bitmap"]
    assert count == 28 and summary.left == {}
    # 2 bytes for half of the weights and a bit for each, and offsets of the rows
    assert after / before == pytest.approx(0.5625, abs=0.02)
    tensors = read_tensors(tmp_path / "packed")
    weight = read_tensors(source)[f"{UP}.weight"]
    assert torch.equal(unpacked(tensors, UP, weight.shape[1], weight.shape[0]), weight)


@pytest.mark.parametrize(
    ("pattern", "format", "kinds"),
    [
        ("2:4", "auto", {"2:4", "bitmap"}),  # 48 in_features are no multiple of 32
        ("2:4", "bitmap", {"bitmap"}),
        ("0.5", "auto", {"bitmap"}),
        ("0.4", "auto", None),
        ("0.5", "2:4", None),
    ],
)
def test_what_each_format_takes(pattern, format, kinds, tmp_path, source_of, rac):
    source = prune_folder(source_of(), tmp_path / "source", pattern)
    arguments = ("pack", source, "--out", tmp_path / "packed", "--format", format, "--quiet")
    code, _, err = rac(*arguments)
    if kinds is None:
        assert code == 2 and err[0].startswith(f"rac: nothing to pack in {source}: its linears are")
        assert not (tmp_path / "packed").exists()
    else:
        linears = config_of(tmp_path / "packed")["quantization_config"]["linears"]
        assert code == 0 and {entry["format"] for entry in linears.values()} == kinds


@pytest.mark.parametrize(
    ("only", "count"),
    [
        (lambda name: ".layers.0." in name, 7),
        (lambda name: ".layers.0." in name or ".layers.3." in name, 14),
        (lambda name: ".mlp." in name, 12),
    ],
    ids=["first", "first-last", "mlp"],
)
def test_partly_sparse_models(only, count, tmp_path):
    source = embedded(tmp_path / "source", only=only)
    summary = pack(source, tmp_path / "packed")
    assert summary.packed["2:4"][0] == count and len(summary.left) == 28 - count
    assert set(summary.left.values()) == {"not 2:4 and less than 45% zeros"}
    before, after = read_tensors(source), read_tensors(tmp_path / "packed")
    packed = {name.removesuffix(".weight") for name in before if only(name) and "proj" in name}
    packed = {name for name in packed if not name.endswith("bias")}
    assert set(config_of(tmp_path / "packed")["quantization_config"]["linears"]) == packed
    kept = {name for name in before if name.removesuffix(".weight") not in packed}
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert before["model.embed_tokens.weight"].dtype == torch.bfloat16


def test_mixed_formats_and_the_table(rac, tmp_path):
    """Attention 2:4, MLP half zeros, in one checkpoint."""
    half = embedded(tmp_path / "half", "0.5", only=lambda name: ".mlp." in name)
    source = prune_folder(half, tmp_path / "source", only=lambda name: ".self_attn." in name)
    code, out, _ = rac("pack", source, "--out", tmp_path / "packed", "--quiet")
    names = [line.split("  ")[0] for line in out[:2]]
    assert code == 0 and names == ["16 linears as 2:4", "12 linears as bitmap"]


def test_shards_stay_shards(tmp_path):
    source = embedded(tmp_path / "source", max_shard_size="2MB")
    pack(source, tmp_path / "packed")
    shards = sorted(path.name for path in source.glob("*.safetensors"))
    assert len(shards) > 2
    assert sorted(path.name for path in (tmp_path / "packed").glob("*.safetensors")) == shards
    index = json.loads((tmp_path / "packed" / "model.safetensors.index.json").read_text())
    held = {
        name: (shard, tensor)
        for shard in shards
        for name, tensor in load_file(tmp_path / "packed" / shard).items()
    }
    assert index["weight_map"] == {name: shard for name, (shard, _) in held.items()}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for _, tensor in held.values())
    pack(embedded(tmp_path / "one"), tmp_path / "one-packed")
    whole = read_tensors(tmp_path / "one-packed")
    assert whole.keys() == held.keys()
    assert all(torch.equal(tensor, held[name][1]) for name, tensor in whole.items())


def test_conv1d_is_packed_as_what_it_multiplies_with(tmp_path, source_of):
    """GPT-2 stores [C, R]; older checkpoints of it leave "transformer." out of their names."""
    dense = shutil.copytree(source_of("gpt2"), tmp_path / "dense")
    tensors = load_file(dense / "model.safetensors")
    tensors = {name.removeprefix("transformer."): t for name, t in tensors.items()}
    save_file(tensors, dense / "model.safetensors", {"format": "pt"})
    source = prune_folder(dense, tmp_path / "source")
    assert pack(source, tmp_path / "packed").packed["2:4"][0] == 12
    name = "transformer.h.1.mlp.c_fc"
    weight = read_tensors(source)["h.1.mlp.c_fc.weight"]
    after = read_tensors(tmp_path / "packed")
    assert torch.equal(unpacked(after, name, 32, 64), weight.T)
    assert "transformer.wte.weight" in after


def test_tied_embeddings_stay_as_they_are(tmp_path, source_of):
    source = prune_folder(source_of("qwen2"), tmp_path / "source")
    pack(source, tmp_path / "packed")
    before, after = read_tensors(source), read_tensors(tmp_path / "packed")
    assert "lm_head.weight" not in before and "lm_head.weight" not in after
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_refusals(rac, tmp_path, source_of):
    source = prune_folder(source_of(), tmp_path / "source")
    out = tmp_path / "packed"
    flags = {"out": out}
    assert "expected auto, 2:4, bitmap, fp8-dense" in refused_pack(
        rac, source, flags | {"format": "4:8"}
    )
    assert "--fp8 packs 2:4" in refused_pack(rac, source, flags | {"format": "bitmap", "fp8": True})
    assert "no such folder" in refused_pack(rac, tmp_path / "nowhere", flags)
    assert not out.exists()
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    assert f"{out} exists" in refused_pack(rac, source, flags)
    assert (out / "precious.txt").read_text() == "mine"
    again = tmp_path / "again"
    pack(source, again)
    message = refused_pack(rac, again, {"out": tmp_path / "twice"})
    assert "already packed or quantized (rac_packed)" in message
    single = save_source(tmp_path / "single", dtype=torch.float32)
    message = refused_pack(rac, single, {"out": tmp_path / "twice"})
    assert "nothing to pack" in message and "in float32, not bf16 or fp16" in message


def test_a_source_that_is_cut_short(rac, tmp_path, source_of):
    source = shutil.copytree(source_of(), tmp_path / "source")
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    message = refused_pack(rac, source, {"out": tmp_path / "packed"})
    assert "model.safetensors ends inside the tensor" in message


def test_a_packed_model_is_not_pruned_again(rac, base, tmp_path, source_of):
    pack(prune_folder(source_of(), tmp_path / "source"), tmp_path / "packed")
    message = refused(rac, base | {"model": tmp_path / "packed"})
    assert "is packed; prune the model that it was packed from" in message
    assert not base["out"].exists()


@pytest.mark.parametrize("stage", ["write", "rename"])
def test_a_failure_leaves_nothing(stage, rac, tmp_path, source_of, monkeypatch):
    source = prune_folder(source_of(max_shard_size="15KB"), tmp_path / "source")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*args: object, **kwargs: object) -> None:
        raise full

    if stage == "write":
        from rac.packed import shards

        real, calls = shards.save_file, []

        def second_fails(*args: object, **kwargs: object) -> None:
            calls.append(1)
            fail() if len(calls) == 2 else real(*args, **kwargs)

        monkeypatch.setattr(shards, "save_file", second_fails)
    else:
        monkeypatch.setattr(os, "replace", fail)
    message = refused_pack(rac, source, {"out": tmp_path / "new" / "packed"})
    assert "the disk is full" in message
    assert list((tmp_path / "new").iterdir()) == []
    monkeypatch.undo()
    pack(source, tmp_path / "new" / "packed")
