"""Damaged packed checkpoints: refused with the tensor's name before anything is loaded."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_tensors, refused
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from rac.errors import UserError
from rac.models import load_model
from rac.packed.check import ordered_positions, stored_tensors
from rac.packed.pack import raw_bytes, sha256

ROOT = Path(__file__).parent.parent
NAME = "model.layers.1.mlp.up_proj"


def damage(folder: Path, name: str, change) -> None:
    """Put `change(tensor)` (None: nothing) in the place of a tensor."""
    tensors = load_file(folder / "model.safetensors")
    changed = change(tensors.pop(name))
    tensors |= {} if changed is None else {name: changed}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def sign_again(folder: Path, part: str, name: str = NAME) -> None:
    """Write the checksum of what is there now, as only a faulty writer would."""
    config = json.loads((folder / "config.json").read_text())
    tensor = load_file(folder / "model.safetensors")[f"{name}.weight_{part}"]
    entry = config["quantization_config"]["linears"][name]
    entry["sha256"][part] = sha256(raw_bytes(tensor))
    (folder / "config.json").write_text(json.dumps(config))


def flip(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(torch.uint8).view(-1)[7] ^= 1
    return tensor


BITMAP = "model.layers.1.mlp.down_proj"
DAMAGES = {
    "missing": (f"{NAME}.weight_values", lambda t: None, "is missing"),
    "shape": (f"{NAME}.weight_metadata", lambda t: t[:-1], "expected shape [64, 2], got [63, 2]"),
    "dtype": (f"{NAME}.weight_values", lambda t: t.half(), "expected BF16, got F16"),
    "one bit": (f"{NAME}.weight_values", flip, "is damaged: its checksum"),
    "metadata": (f"{NAME}.weight_metadata", flip, "is damaged: its checksum"),
    "bits": (f"{BITMAP}.weight_bitmap", flip, "is damaged: its checksum"),
    "count": (f"{BITMAP}.weight_values", lambda t: t[1:], "is damaged: its checksum"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_tensors_are_named(kind, packed, rac):
    name, change, message = DAMAGES[kind]
    damage(packed, name, change)
    with pytest.raises(ValueError, match=name) as raised:
        AutoModelForCausalLM.from_pretrained(packed)
    assert message in str(raised.value)
    with pytest.raises(UserError, match=name):
        load_model(packed, "cpu")
    line = refused(rac, {"model": packed, "quiet": True}, "eval")
    assert name in line and message in line


def test_a_file_cut_short(packed):
    file = packed / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    last = max((e["data_offsets"][1], n) for n, e in header.items() if n != "__metadata__")[1]
    file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"ends inside the tensor {last}"):
        AutoModelForCausalLM.from_pretrained(packed)
    for cut in (0, 5, 8 + length // 2):
        file.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"no complete safetensors header"):
            AutoModelForCausalLM.from_pretrained(packed)


def test_positions_that_no_packing_makes(packed):
    """With a checksum that agrees: a kernel would gather the wrong activations."""

    def equal_positions(tensor: torch.Tensor) -> torch.Tensor:
        tensor[3, 1] = (tensor[3, 1] & ~0xF0) | 0x50  # first = second = 1 in the second group
        return tensor

    damage(packed, f"{NAME}.weight_metadata", equal_positions)
    sign_again(packed, "metadata")
    with pytest.raises(ValueError, match=f"{NAME}.weight_metadata holds positions that are not"):
        AutoModelForCausalLM.from_pretrained(packed)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("bitmap", flip, "weight_offsets do not count the bits"),
        ("offsets", flip, "weight_offsets do not count the bits"),
        ("values", lambda t: t[1:], "weight_values: expected"),
    ],
)
def test_bitmaps_that_do_not_fit_their_values(part, change, message, packed):
    damage(packed, f"{BITMAP}.weight_{part}", change)
    sign_again(packed, part, BITMAP)
    with pytest.raises(ValueError, match=message):
        AutoModelForCausalLM.from_pretrained(packed)


def test_every_nibble_by_hand():
    for nibble in range(16):
        words = np.full(8, 0x44444444, np.uint32)
        words[5] = 0x44044444 | nibble << 20
        assert ordered_positions(words.view(np.uint8)) == (nibble & 3 < nibble >> 2)


def without(entry: dict, key: str) -> dict:
    return {name: value for name, value in entry.items() if name != key}


def test_a_config_that_names_what_is_not_there(packed):
    path = packed / "config.json"
    config = json.loads(path.read_text())
    linears = config["quantization_config"]["linears"]
    up = linears[NAME]

    def changed(**keys) -> dict:
        return {"linears": linears | {NAME: up | keys}}

    for change, message in [
        ({"version": 2}, "packed format 2 is not 1"),
        ({"version": None}, "config.json has no version of the packed format"),
        ({"linears": None}, "config.json names no packed linears"),
        (
            {"linears": without(linears, NAME)},
            f"{NAME}.weight_metadata belongs to no packed linear",
        ),
        ({"linears": linears | {NAME: 7}}, f"has no format of the packed linear {NAME}"),
        (
            {"linears": linears | {NAME: without(up, "sha256")}},
            f"no sha256 of the packed .* {NAME}",
        ),
        (changed(sha256=without(up["sha256"], "values")), f"no sha256 of {NAME}.weight_values"),
        (changed(shape=[64]), rf"expected shape \[R, C\] of {NAME}, got \[64\]"),
        (changed(shape=[64, -1]), rf"expected shape \[R, C\] of {NAME}, got"),
        (changed(shape="64"), f"has no shape of the packed linear {NAME}"),
        (changed(dtype="I4"), "unknown dtype 'I4'"),
        ({"rotation": "hadamard"}, "config.json has rotation of a newer packed format"),
        ({"linears": linears | {NAME: linears[NAME] | {"format": "1:8"}}}, "unknown packed format"),
        ({"linears": linears | {NAME: linears[NAME] | {"shape": [48, 64]}}}, NAME),
        ({"linears": linears | {"model.layers.9.x": up}}, "tensor model.layers.9.x.* is missing"),
    ]:
        written = config | {"quantization_config": config["quantization_config"] | change}
        path.write_text(json.dumps(written))
        with pytest.raises(ValueError, match=message):
            AutoModelForCausalLM.from_pretrained(packed)
    path.write_text(json.dumps(config))
    AutoModelForCausalLM.from_pretrained(packed)


@pytest.mark.parametrize("dense", ["model.embed_tokens.weight", "model.norm.weight"])
def test_tensors_that_stayed_dense(dense, packed, rac):
    """One bit of the file, not of a tensor that is then written with its checksums."""
    file = packed / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[stored_tensors([file])[dense].start + 3] ^= 4
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{dense} is damaged: its checksum is not"):
        AutoModelForCausalLM.from_pretrained(packed)
    assert f"{dense} is damaged" in refused(rac, {"model": packed, "quiet": True}, "eval")
    damage(packed, dense, lambda tensor: None)
    with pytest.raises(ValueError, match=f"the tensor {dense} is missing"):
        AutoModelForCausalLM.from_pretrained(packed)


def test_checkpoints_without_checksums_of_dense_tensors_load(packed, tmp_path):
    """Those that were packed before there were any, and those that a cast or training changed."""
    path = packed / "config.json"
    config = json.loads(path.read_text())
    assert len(config["quantization_config"].pop("tensors")) == 9
    model = AutoModelForCausalLM.from_pretrained(packed)
    path.write_text(json.dumps(config))
    AutoModelForCausalLM.from_pretrained(packed)
    model.to(torch.float32).save_pretrained(tmp_path / "saved")
    AutoModelForCausalLM.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.pop("data_offsets"),
        lambda entry: entry.pop("shape"),
        lambda entry: entry.update(data_offsets=[8]),
        lambda entry: entry.update(data_offsets=[-8, 8]),
        lambda entry: entry.update(shape=["R", 8]),
    ],
)
def test_a_header_that_says_nothing_sound_of_a_tensor(change, packed):
    file = packed / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header[f"{NAME}.weight_values"])
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(ValueError, match=f"{file}: damaged header of the tensor {NAME}"):
        stored_tensors([file])


def test_a_state_dict_is_not_a_packed_checkpoint(packed):
    config = AutoConfig.from_pretrained(packed)
    tensors = read_tensors(packed)
    shutil.rmtree(packed)
    kind = AutoModelForCausalLM._model_mapping[type(config)]
    with pytest.raises(ValueError, match="loaded from its files, not from a state_dict"):
        kind.from_pretrained(None, config=config, state_dict=tensors)
