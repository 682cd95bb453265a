"""Models and tokenizers: find them, load them, and know their decoder layers and linears."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rac.engines.attention import use_grouped_attention
from rac.engines.fused import fuse
from rac.engines.fused_step import fuse_step
from rac.engines.stacked import stack
from rac.errors import UserError, first_line

EMBEDDED = Path(__file__).parent / "assets" / "model"
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_model(name: str) -> Path:
    """The local folder of a model: "embedded", a directory, or a hub name (downloaded once).

    Raises:
        UserError: there is no such folder or it is not a model, or the hub cannot be reached.
    """
    path = EMBEDDED if name == "embedded" else Path(name)
    if not path.is_dir():
        path = _download(name)
    if not (path / "config.json").is_file():
        raise UserError(f"--model {name}: {path} has no config.json, so it is not a model folder")
    if not any(path.glob("*.safetensors")):
        raise UserError(
            f"--model {name}: {path} has no .safetensors file; save the model with "
            "save_pretrained(..., safe_serialization=True) first"
        )
    return path


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"--model {name}: no such folder")
    try:
        return Path(snapshot_download(name, allow_patterns=MODEL_FILES))
    except Exception as error:  # the hub client raises many kinds; all mean "not here"
        raise UserError(
            f"--model {name}: no such folder, and the hub did not give it ({first_line(error)}); "
            "pass the path of a downloaded model"
        ) from error


def pick_device(device: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:1" into a device that exists.

    Raises:
        UserError: it does not.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        result = torch.device(device)
        torch.empty(1, device=result)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} cannot be used on this machine: use cpu") from error
    if result.type == "meta":
        raise UserError("--device meta holds no weights: use cpu or cuda")
    return result


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype | str:
    """Where it is "auto": float32 on a CPU, the checkpoint's own dtype on a GPU."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: expected auto or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def load_model(name: str | Path, device: str = "auto", dtype: str = "auto") -> PreTrainedModel:
    """Load a causal language model for inference.

    Raises:
        UserError: it cannot be found or read, or the device or dtype is not possible.
    """
    place = pick_device(device)
    path = resolve_model(str(name))
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            path, dtype=pick_dtype(dtype, place), output_loading_info=True
        )
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot load the model in {path}: {first_line(error)}") from error
    if info["missing_keys"]:  # transformers would leave them random
        missing = sorted(info["missing_keys"])[0]
        raise UserError(f"the checkpoint in {path} is incomplete: it has no tensor {missing}")
    use_grouped_attention(model)
    model = model.to(place).eval().requires_grad_(False)
    stack(model)
    fuse(model)
    fuse_step(model)
    return model


def check_weights(model: PreTrainedModel) -> None:
    """Refuse weights that are not finite; attention kernels may hide them from activations.

    Raises:
        UserError: names the tensor.
    """
    for name, parameter in model.named_parameters():
        if parameter.numel() and not all(bool(v.isfinite()) for v in parameter.aminmax()):
            raise UserError(f"{name} of the model holds NaN or Inf: its checkpoint is damaged")


def load_tokenizer(name: str | Path):  # noqa: ANN201 - transformers has several base classes
    """Load the tokenizer that lies with a model.

    Raises:
        UserError: there is none.
    """
    path = resolve_model(str(name))
    try:
        return AutoTokenizer.from_pretrained(path)
    except Exception as error:
        raise UserError(f"cannot load the tokenizer in {path}: {first_line(error)}") from error


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name and the list of the model's decoder layers.

    Raises:
        UserError: the model has no list of `num_hidden_layers` modules.
    """
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise UserError(f"{type(model).__name__} has no list of {count} decoder layers to prune")


def linears(model: PreTrainedModel) -> dict[str, nn.Module]:
    """All linears (nn.Linear and GPT-2's Conv1D) inside the decoder layers, by name, in order."""
    prefix, layers = decoder_layers(model)
    found = {
        f"{prefix}.{name}": module
        for name, module in layers.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    if not found:
        raise UserError(f"{type(model).__name__} has no linear layers inside {prefix}")
    return found


def layer_index(model: PreTrainedModel, name: str) -> int:
    """Which decoder layer the linear called `name` belongs to."""
    prefix, _ = decoder_layers(model)
    return int(name[len(prefix) + 1 :].split(".", 1)[0])


def get_weight(module: nn.Module) -> Tensor:
    """The weight as [out_features, in_features]; a view for Conv1D, which stores the transpose."""
    return module.weight.data.T if isinstance(module, Conv1D) else module.weight.data


def set_weight(module: nn.Module, weight: Tensor) -> None:
    """Overwrite the weight in place from [out_features, in_features]."""
    get_weight(module).copy_(weight)
