"""SparseGPT as its authors' script runs it, written from the published algorithm.

One Hessian a linear, the full square of it updated sequence by sequence; its inverse's factor by
Cholesky, inversion and Cholesky again; then a loop over columns in eager PyTorch whose error is
pushed across the rest of the matrix. One decoder layer at a time: a pass that collects, the solve,
and a second pass that hands on what the pruned layer gives (`propagate="pruned"`, as the script
does); `propagate="dense"` hands on the first pass' outputs instead.

Source: SparseGPT, arXiv 2301.00774, algorithm 1.
"""

import sys
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.peers import contender

Pattern = tuple[float, int, int]  # sparsity, and n:m with n pruned of every m; 0, 0 without


class EagerSparseGPT:
    """One linear: `add_batch` collects its Hessian [C, C], `prune` overwrites its weight [R, C]."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer, self.samples = layer, 0
        columns = layer.weight.shape[1]
        self.hessian = torch.zeros(columns, columns, device=layer.weight.device)

    def add_batch(self, x: Tensor) -> None:
        """Add a batch of inputs [B, T, C]: `H = 2/n sum x x^T` over n sequences."""
        count = x.shape[0]
        self.hessian *= self.samples / (self.samples + count)
        self.samples += count
        columns = (2 / self.samples) ** 0.5 * x.reshape(-1, x.shape[-1]).t().float()  # [C, BT]
        self.hessian += columns.matmul(columns.t())

    def prune(self, pattern: Pattern, block_size: int = 128, damping: float = 0.01) -> None:
        """Choose what to prune block by block and push each column's error to the right."""
        weight = self.layer.weight.data.clone().float()
        diagonal = self.hessian.diagonal()
        dead = diagonal == 0
        diagonal[dead] = 1
        weight[:, dead] = 0
        diagonal += damping * diagonal.mean()
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self.hessian))
        factor = torch.linalg.cholesky(inverse, upper=True)  # R of H^-1 = R^T R
        for start in range(0, weight.shape[1], block_size):
            end = min(start + block_size, weight.shape[1])
            errors = _prune_block(weight[:, start:end], factor[start:end, start:end], pattern)
            weight[:, end:] -= errors.matmul(factor[start:end, end:])
        self.layer.weight.data = weight.to(self.layer.weight.dtype)


def _prune_block(block: Tensor, factor: Tensor, pattern: Pattern) -> Tensor:
    """Prune `block` [R, B] in place; returns the columns' errors [R, B]."""
    sparsity, n, m = pattern
    scale = factor.diagonal()
    errors = torch.zeros_like(block)
    pruned = torch.zeros_like(block, dtype=torch.bool)
    if not n:
        scores = block**2 / scale**2
        threshold = torch.sort(scores.flatten())[0][int(scores.numel() * sparsity)]
        pruned = scores <= threshold
    for j in range(block.shape[1]):
        if n and j % m == 0:
            scores = block[:, j : j + m] ** 2 / scale[j : j + m] ** 2
            pruned.scatter_(1, j + torch.topk(scores, n, dim=1, largest=False)[1], True)
        column = block[:, j].clone()
        kept = column.clone()
        kept[pruned[:, j]] = 0
        errors[:, j] = (column - kept) / scale[j]
        block[:, j:] -= errors[:, j].unsqueeze(1).matmul(factor[j, j:].unsqueeze(0))
        block[:, j] = kept
    return errors


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """The first decoder layer was reached."""


def first_inputs(
    model: PreTrainedModel, layer: nn.Module, sequences: list[list[int]]
) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """What the model's own forward passes to its first decoder layer, per sequence."""
    hidden: list[Tensor] = []
    keywords: list[dict[str, Any]] = []

    def catch(module: nn.Module, args: tuple, kwargs: dict) -> None:
        hidden.append(args[0])
        keywords.append(kwargs)
        raise _Reached

    handle = layer.register_forward_pre_hook(catch, with_kwargs=True)
    for ids in sequences:
        try:
            model(input_ids=torch.tensor([ids]), use_cache=False)
        except _Reached:
            continue
    handle.remove()
    return hidden, keywords


def _collect(layer: nn.Module, hidden: list[Tensor], keywords: list[dict]) -> tuple[dict, list]:
    """Hessians of the layer's linears, and the layer's outputs, of one pass."""
    solvers = {
        name: EagerSparseGPT(module)
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }
    handles = [
        solver.layer.register_forward_hook(lambda _, args, out, s=solver: s.add_batch(args[0]))
        for solver in solvers.values()
    ]
    outputs = [layer(x, **k) for x, k in zip(hidden, keywords, strict=True)]
    for handle in handles:
        handle.remove()
    return solvers, outputs


@torch.no_grad()
def prune_model(
    model: PreTrainedModel,
    sequences: list[list[int]],
    pattern: Pattern,
    propagate: str,
    solving: contender.Stopwatch,
) -> dict[str, Tensor]:
    """Prune every linear of the decoder layers; returns their weights by name."""
    layers = model.model.layers
    hidden, keywords = first_inputs(model, layers[0], sequences)
    weights: dict[str, Tensor] = {}
    for index, layer in enumerate(layers):
        solvers, outputs = _collect(layer, hidden, keywords)
        for name, solver in solvers.items():
            with solving.running():
                solver.prune(pattern)
            weights[f"model.layers.{index}.{name}.weight"] = solver.layer.weight.data
        if propagate == "pruned":
            outputs = [layer(x, **k) for x, k in zip(hidden, keywords, strict=True)]
        hidden = outputs
        print(f"layer {index}", file=sys.stderr)
    return weights


def parse_pattern(text: str) -> Pattern:
    """(sparsity, n, m) of "0.5" or "2:4"."""
    n, _, m = text.partition(":")
    return (int(n) / int(m), int(n), int(m)) if m else (float(text), 0, 0)


def main() -> None:
    """Run as a contender."""
    options = contender.parse_options(__doc__.splitlines()[0])
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    sequences = contender.read_ids(options.ids)
    loaded = contender.memory_bytes("VmRSS")
    total, solver = contender.Stopwatch(), contender.Stopwatch()
    pattern = parse_pattern(options.pattern)
    with total.running():
        weights = prune_model(model, sequences, pattern, options.propagate, solver)
    contender.write_result(options.out, total, solver, loaded, ["torch", "transformers"])
    stored = {name: weight.bfloat16() for name, weight in weights.items()}
    save_file(stored, options.out / "weights.safetensors")


if __name__ == "__main__":
    main()
