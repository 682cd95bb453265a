"""A checkpoint rewritten shard by shard: some linears' weights become other tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rac.checkpoint import copy_other_files, source_shards
from rac.errors import UserError, first_line
from rac.files import read_json, write_json
from rac.models import linears
from rac.packed.check import stored_tensors

INDEX = "model.safetensors.index.json"
Transform = Callable[[str, Tensor], dict[str, Tensor] | None]


@dataclass(frozen=True)
class Source:
    """A dense checkpoint, its weights not read.

    Attributes:
        folder: where it lies.
        config: its config.json.
        shards: its safetensors files.
        names: stored name of each tensor -> its name in the model.
        model: the model on the meta device.
    """

    folder: Path
    config: dict[str, Any]
    shards: list[Path]
    names: dict[str, str]
    model: PreTrainedModel

    @property
    def nbytes(self) -> int:
        """Bytes of the shards."""
        return sum(shard.stat().st_size for shard in self.shards)


def open_source(folder: Path) -> Source:
    """Read a checkpoint's configuration and the headers of its shards.

    Raises:
        UserError: it is packed or quantized already, cannot be read, or its tensors are not named
            as the model's.
    """
    config = read_json(folder / "config.json")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method")
        raise UserError(f"{folder} is already packed or quantized ({method}); pack a dense model")
    shards = source_shards(folder)
    try:
        stored = stored_tensors(shards)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    except Exception as error:
        raise UserError(f"cannot read the model in {folder}: {first_line(error)}") from error
    known, prefix = model.state_dict().keys(), f"{model.base_model_prefix}."
    # Older checkpoints leave the base model's prefix out; packed ones never do.
    names = {n: prefix + n if n not in known and prefix + n in known else n for n in stored}
    missing = {f"{linear}.weight" for linear in linears(model)} - set(names.values())
    if missing:
        raise UserError(f"the checkpoint in {folder} has no tensor {min(missing)}")
    return Source(folder, config, shards, names, model)


def rewrite(
    source: Source, folder: Path, transform: Transform, advance: Callable[[int], None]
) -> int:
    """Write `source`'s files into `folder`, all but config.json; returns the tensors' bytes.

    `transform` gets the name of each linear and its weight [R, C], and gives what is stored in its
    place as `NAME.KEY`, or None: then the tensor stays as it is, as all others do. One shard at a
    time is in memory. `advance` is called with 1 after each linear.
    """
    copy_other_files(source.folder, folder)
    modules = linears(source.model)
    weight_map: dict[str, str] = {}
    total = 0
    for shard in source.shards:
        result: dict[str, Tensor] = {}
        with safe_open(shard, "pt") as tensors:
            metadata = tensors.metadata()
            for stored in tensors.keys():  # noqa: SIM118 - not a dict
                name, tensor = source.names[stored], tensors.get_tensor(stored)
                linear = name.removesuffix(".weight")
                new = None
                if linear in modules:
                    conv = isinstance(modules[linear], Conv1D)
                    new = transform(linear, tensor.T.contiguous() if conv else tensor)
                    advance(1)
                parts = {} if new is None else {f"{linear}.{k}": t for k, t in new.items()}
                result |= parts or {name: tensor}
        save_file(result, folder / shard.name, metadata=metadata or {"format": "pt"})
        weight_map |= dict.fromkeys(result, shard.name)
        total += sum(tensor.nbytes for tensor in result.values())
    (folder / INDEX).unlink(missing_ok=True)
    if len(source.shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(folder / INDEX, index)
    return total
