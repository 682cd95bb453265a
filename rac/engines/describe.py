"""What a model is: its pattern and calibration from rac.json, a fingerprint of its weights."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from rac.errors import UserError
from rac.files import read_json
from rac.models import EMBEDDED
from rac.packed.linears import PackedLinear

SAMPLED_ELEMENTS = 4096
DESCRIBED = ("pattern", "calibration", "solver", "source_model", "sparsity")


def describe_checkpoint(name: str) -> dict[str, Any]:
    """Pattern, calibration, solver and source from the rac.json in the model folder `name`.

    A model without one is dense and its own source.

    Raises:
        UserError: the rac.json is damaged.
    """
    path = Path(name) / "rac.json"
    if not name or not path.is_file():
        name = "embedded" if Path(name) == EMBEDDED else name
        return {
            "pattern": "dense",
            "calibration": "dense",
            "solver": None,
            "model": name,
            "source_model": name,
            "sparsity": 0.0,
        }
    written = read_json(path)
    missing = [key for key in DESCRIBED if key not in written]
    if missing:
        raise UserError(f"{path}: the key {missing[0]!r} is missing; prune the model again")
    return {**{key: written[key] for key in DESCRIBED}, "model": name}


def described_folder(name: str | None) -> Path | None:
    """The model folder that `name` is: the folder itself, or the model of a run; None for a name.

    Raises:
        UserError: it is written as a path, and there is no such folder.
    """
    path = EMBEDDED if name == "embedded" else Path(name or "")
    if not name or not path.is_dir():
        if name and name.startswith((".", "/", "~")):
            raise UserError(f"--describe {name}: no such folder")
        return None
    inside = path / "model"
    return inside if (inside / "rac.json").is_file() else path


def fingerprint(model: PreTrainedModel) -> str:
    """A hash of up to 4096 evenly spaced elements of each weight, in float32.

    Two prunings of one model differ in it, two loads of one checkpoint do not.
    """
    digest = hashlib.sha256()
    packed = [(n, m) for n, m in model.named_modules() if isinstance(m, PackedLinear)]
    buffers = {f"{n}.{part}": b for n, module in packed for part, b in module.named_buffers()}
    for name, tensor in {**dict(model.named_parameters()), **buffers}.items():
        step = max(1, tensor.numel() // SAMPLED_ELEMENTS)
        sample = tensor.detach().reshape(-1)[::step].to("cpu", torch.float32).contiguous()
        digest.update(name.encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint_files(folder: Path) -> str:
    """A hash of the ends of every .safetensors file in `folder`: weights that were not loaded.

    64 KiB at either end and 4096 single bytes evenly between them; the names and sizes count too.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with open(path, "rb") as file:
            digest.update(file.read(1 << 16))
            for position in range(1 << 16, size, max(1, size // SAMPLED_ELEMENTS)):
                file.seek(position)
                digest.update(file.read(1))
            file.seek(max(0, size - (1 << 16)))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def digest_prompts(prompts: Sequence[Any]) -> str:
    """A fingerprint of prompts: token ids where they are known, else text or messages."""
    return hashlib.sha256(repr(list(prompts)).encode()).hexdigest()[:16]


def require_fit(prompts: Sequence[Sequence[int]], context: int) -> None:
    """Refuse token ids that leave no room for an answer in `context`.

    Raises:
        UserError: names the problem.
    """
    for index, prompt in enumerate(prompts):
        if len(prompt) >= context:
            raise UserError(
                f"problem {index + 1} has {len(prompt)} tokens and the model's context {context}; "
                "leave it out or shorten it"
            )
