"""How transformers loads a packed checkpoint: packed linears in, then tensors, then a check."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from rac.packed.check import (
    DTYPES,
    check_entries,
    check_linears,
    check_sums,
    expected_parts,
    stored_tensors,
)
from rac.packed.linears import DenseLinear, meta_linear
from rac.packed.registration import QUANT_METHOD, VERSION

if TYPE_CHECKING:  # this module is imported while transformers itself is
    from transformers import PreTrainedModel


class PackedConfig(QuantizationConfigMixin):
    """The `quantization_config` of a packed checkpoint.

    Attributes:
        version: of the format.
        linears: name -> {"format": "2:4" | "2:4-fp8" | "bitmap", "dtype", "shape": [R, C],
            "sha256": {part: hex}}.
        tensors: name -> sha256 of every tensor that stayed dense; empty in checkpoints of before
            it was written, and in those that transformers has saved again.
    """

    def __init__(
        self,
        linears: dict[str, dict] | None = None,
        version: int | None = None,
        tensors: dict[str, str] | None = None,
        quant_method: str = QUANT_METHOD,
        **newer: Any,
    ) -> None:
        if version is None:
            raise ValueError("config.json has no version of the packed format; copy it again")
        if version != VERSION:
            raise ValueError(f"packed format {version} is not {VERSION}; use the rac that wrote it")
        if newer:
            raise ValueError(f"config.json has {min(newer)} of a newer packed format; update rac")
        check_entries(linears)
        self.quant_method = quant_method
        self.version = version
        self.linears = linears
        self.tensors = tensors or {}


class PackedQuantizer(HfQuantizer):
    """Replaces linears by packed ones before the weights are read."""

    requires_calibration = True
    quantization_config: PackedConfig

    def _process_model_before_weight_loading(
        self, model: "PreTrainedModel", checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        """Check the files, and make the model's skeleton what they hold.

        Raises:
            ValueError: names the tensor that is not what was written, or the linear that the model
                does not have.
        """
        if checkpoint_files is None:
            raise ValueError("a packed model is loaded from its files, not from a state_dict")
        linears = self.quantization_config.linears
        tensors = stored_tensors(checkpoint_files)
        check_linears(tensors, linears)
        check_sums(tensors, self.quantization_config.tensors)
        named: dict[str, dict] = {}
        for name, entry in linears.items():
            parts = {
                part: (DTYPES[dtype], tensors[f"{name}.weight_{part}"].shape)
                for part, (dtype, _) in expected_parts(entry).items()
            }
            here = _name_here(model, name)
            _replace(model, here, entry, parts)
            named[here] = entry
        # As this model names them, and so saves them: without the base model's prefix, or with it.
        self.quantization_config.linears = named
        self.quantization_config.tensors = {}  # a cast or a training step changes these

    def _process_model_after_weight_loading(self, model: "PreTrainedModel", **kwargs: Any) -> None:
        """Have the linears that stay dense multiply as fast as those that were packed."""
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = DenseLinear

    def is_serializable(self) -> bool:
        """Packed tensors are saved as they are."""
        return True

    @property
    def is_trainable(self) -> bool:
        """There is no backward."""
        return False


def _name_here(model: "PreTrainedModel", name: str) -> str:
    """The linear's name in `model`, which may be the base model alone."""
    prefix = f"{model.base_model_prefix}."
    modules = dict(model.named_modules())
    for candidate in (name, name.removeprefix(prefix), prefix + name):
        if candidate in modules:
            return candidate
    raise ValueError(f"{type(model).__name__} has no linear {name}, which the checkpoint packs")


def _replace(
    model: "PreTrainedModel",
    name: str,
    entry: dict[str, Any],
    parts: dict[str, tuple[torch.dtype, tuple[int, ...]]],
) -> None:
    dense = model.get_submodule(name)
    weight = getattr(dense, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2:
        raise ValueError(f"{name} of {type(model).__name__} is not a linear, and is packed")
    # Conv1D stores the transpose.
    shape = tuple(weight.shape) if isinstance(dense, nn.Linear) else tuple(weight.shape[::-1])
    if shape != tuple(entry["shape"]):
        raise ValueError(f"{name}: expected a weight {list(shape)}, got {list(entry['shape'])}")
    model.set_submodule(name, meta_linear(entry["format"], shape, parts, dense.bias))
    # Some models' initialization reaches for the weights of a block's linears.
    model.get_submodule(name.rpartition(".")[0])._is_hf_initialized = True
