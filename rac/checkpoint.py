"""The pruned model on disk: the source's own files with new numbers in the pruned tensors."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from rac.errors import UserError
from rac.files import replace_directory, write_json
from rac.models import linears, set_weight

COPIED = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "LICENSE*", "NOTICE*")


def copy_other_files(source: Path, folder: Path) -> None:
    """Copy what lies beside the weights: configuration, tokenizer, template, licence, records."""
    for pattern in COPIED:
        for file in source.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def source_shards(source: Path) -> list[Path]:
    """The safetensors files of a checkpoint, those of its index where it has one."""
    index = source / "model.safetensors.index.json"
    if not index.is_file():
        single = source / "model.safetensors"
        return [single] if single.is_file() else sorted(source.glob("*.safetensors"))
    names = set(json.loads(index.read_text())["weight_map"].values())
    missing = sorted(name for name in names if not (source / name).is_file())
    if missing:
        raise UserError(f"{source} is incomplete: {missing[0]} of its index is missing")
    return [source / name for name in sorted(names)]


def weight_dtypes(source: Path, default: torch.dtype) -> dict[str, torch.dtype]:
    """The stored dtype of every tensor of the checkpoint.

    Raises:
        UserError: a shard cannot be read.
    """
    dtypes = {}
    for shard in source_shards(source):
        try:
            with safe_open(shard, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict
                    kind = tensors.get_slice(name).get_dtype()
                    dtypes[name] = _SAFETENSORS_DTYPES.get(kind, default)
        except Exception as error:
            raise UserError(f"cannot read {shard}: {error}; download it again") from error
    return dtypes


_SAFETENSORS_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def stored_names(model: PreTrainedModel, source: Path) -> dict[str, str] | None:
    """Linear name -> tensor name in the source's shards, or None where some are not found.

    Older checkpoints leave the base model's prefix out of their names.
    """
    available = weight_dtypes(source, torch.float32)
    prefix = f"{model.base_model_prefix}."
    names = {}
    for linear in linears(model):
        full = f"{linear}.weight"
        found = next((n for n in (full, full.removeprefix(prefix)) if n in available), None)
        if found is None:
            return None
        names[linear] = found
    return names


def write_checkpoint(
    out: Path,
    source: Path,
    model: PreTrainedModel,
    pruned: dict[str, Path],
    transposed: set[str],
    extra: dict[str, Any],
) -> None:
    """Write the checkpoint into `out`, whole or not at all.

    `pruned` maps each linear to the safetensors file that holds its new weight [R, C]; linears in
    `transposed` store [C, R] (Conv1D). `extra` maps a file name to the JSON object or text to put
    beside. All other tensors are copied byte for byte, shard by shard.
    """
    names = stored_names(model, source)
    with replace_directory(out) as folder:
        copy_other_files(source, folder)
        if names is None:
            _save_model(folder, source, model, pruned)
        else:
            renamed = {names[linear]: linear for linear in pruned}
            for shard in source_shards(source):
                _rewrite_shard(shard, folder / shard.name, renamed, pruned, transposed)
        for name, value in extra.items():
            if isinstance(value, str):
                (folder / name).write_text(value)
            else:
                write_json(folder / name, value)


def _load_pruned(file: Path, linear: str) -> Tensor:
    with safe_open(file, "pt") as tensors:
        return tensors.get_tensor(linear)


def _rewrite_shard(
    shard: Path, target: Path, renamed: dict[str, str], pruned: dict, transposed: set[str]
) -> None:
    result = {}
    with safe_open(shard, "pt") as tensors:
        metadata = tensors.metadata()
        for name in tensors.keys():  # noqa: SIM118 - not a dict
            tensor = tensors.get_tensor(name)
            if name in renamed:
                linear = renamed[name]
                new = _load_pruned(pruned[linear], linear)
                new = new.T if linear in transposed else new
                tensor = new.to(tensor.dtype).contiguous()
            result[name] = tensor
    save_file(result, target, metadata=metadata)


def _save_model(
    folder: Path, source: Path, model: PreTrainedModel, pruned: dict[str, Path]
) -> None:
    """For checkpoints whose tensor names transformers converts on loading: load, set, save."""
    copy = type(model).from_pretrained(source, dtype="auto")
    modules = linears(copy)
    for linear, file in pruned.items():
        set_weight(modules[linear], _load_pruned(file, linear))
    copy.save_pretrained(folder)
