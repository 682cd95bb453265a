"""Checkpoints to pack: a dense folder with some of its linears pruned by magnitude."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from rac.assets.tokenizer import build_tokenizer
from rac.models import EMBEDDED
from rac_kernels import Pattern, magnitude

LINEAR = re.compile(r"(?:\.|^)(?:layers|h)\.(\d+)\..*\.weight$")
PROMPT = "Nora has 12 boxes"


def prune_folder(
    source: Path,
    folder: Path,
    pattern: str | None = "2:4",
    only: Callable[[str], bool] = lambda name: True,
) -> Path:
    """A copy of `source` in which the decoder layers' matrices that `only` picks are pruned.

    GPT-2's are stored as [C, R].
    """
    shutil.copytree(source, folder)
    for shard in folder.glob("*.safetensors"):
        with safe_open(shard, "pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        for name, tensor in tensors.items():
            if pattern and tensor.ndim == 2 and LINEAR.search(name) and only(name):
                conv = "c_" in name
                pruned, _ = magnitude(tensor.T if conv else tensor, Pattern.parse(pattern))
                tensors[name] = (pruned.T if conv else pruned).contiguous()
        save_file(tensors, shard, metadata)
    return folder


def embedded(
    folder: Path, pattern: str | None = "2:4", max_shard_size: str = "1GB", **only
) -> Path:
    """The embedded reasoner, pruned; in shards of `max_shard_size`."""
    source = EMBEDDED
    if max_shard_size != "1GB":
        source = folder.with_name(f"{folder.name}-shards")
        model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype="auto")
        model.save_pretrained(source, max_shard_size=max_shard_size)
        for file in (*EMBEDDED.glob("token*"), *EMBEDDED.glob("*.jinja")):
            shutil.copyfile(file, source / file.name)
    return prune_folder(source, folder, pattern, **only)


def greedy(folder: Path, tokens: int = 24, **options) -> list[int]:
    """What `from_pretrained` and greedy decoding make of a fixed prompt."""
    model = AutoModelForCausalLM.from_pretrained(folder, **options)
    ids = torch.tensor([build_tokenizer(512)(PROMPT)["input_ids"]])
    return model.generate(ids, max_new_tokens=tokens, do_sample=False)[0].tolist()
