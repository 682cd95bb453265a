"""The one measure for all contenders: relative layer errors on the dense model's activations.

`||(W - Q) X||_F / ||W X||_F` with X the input of each linear in the dense float32 model over the
calibration's sequences, one at a time. Plain torch, sums in float64; nothing of rac's own
calibration takes part.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.peers.contender import read_ids


@torch.inference_mode()
def second_moments(model: PreTrainedModel, sequences: list[list[int]]) -> dict[str, Tensor]:
    """`X^T X` [C, C] float64 of every linear in the decoder layers; shared inputs share it."""
    moments: dict[str, Tensor] = {}
    current: dict[int, tuple[Tensor, Tensor]] = {}  # a tensor seen in this forward -> its moment

    def add(name: str, x: Tensor) -> None:
        if id(x) not in current:
            if name not in moments:
                moments[name] = torch.zeros(2 * [x.shape[-1]], dtype=torch.float64)
            moments[name] += x[0].T @ x[0]
            current[id(x)] = (x, moments[name])  # x is kept, so that its id stays its own
        moments[name] = current[id(x)][1]

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and ".layers." in name:
            module.register_forward_pre_hook(lambda _, args, name=name: add(name, args[0]))
    for ids in sequences:
        current.clear()
        model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=1)
    return moments


def layer_errors(
    model: PreTrainedModel, moments: dict[str, Tensor], weights: dict[str, Tensor]
) -> dict[str, float]:
    """`||(W - Q) X|| / ||W X||` of every linear, Q from `weights`."""
    errors = {}
    for name, moment in moments.items():
        dense = model.get_submodule(name).weight.detach().double()
        change = dense - weights[f"{name}.weight"].double()
        energy = ((change @ moment) * change).sum() / ((dense @ moment) * dense).sum()
        errors[name] = float(energy.clamp(min=0).sqrt())
    return errors


def sparsity(weights: dict[str, Tensor]) -> float:
    """The share of zeros in all weights together."""
    zeros = sum(int((w == 0).sum()) for w in weights.values())
    return zeros / sum(w.numel() for w in weights.values())


def main() -> None:
    """`python -m benchmarks.peers.judge MODEL IDS THREADS FOLDER...` writes errors.json in each."""
    model_folder, ids, threads, *folders = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    moments = second_moments(model, read_ids(Path(ids)))
    for folder in map(Path, folders):
        weights = load_file(folder / "weights.safetensors")
        judged = {"sparsity": sparsity(weights), "layers": layer_errors(model, moments, weights)}
        (folder / "errors.json").write_text(json.dumps(judged, indent=1) + "\n")


if __name__ == "__main__":
    main()
