"""llm-compressor's `oneshot` with its SparseGPTModifier, on given token ids.

Runs in an environment that has llmcompressor. Its defaults are kept but for what makes the
comparison fair: every linear but lm_head, the ids in their order, and `propagate_error` as asked.
"""

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from benchmarks.peers import contender


def batches(sequences: list[list[int]]) -> DataLoader:
    """The ids, a sequence a batch, as oneshot's own default batch size of 1 would have them."""
    rows = []
    for ids in sequences:
        tensor = torch.tensor([ids])
        rows.append({"input_ids": tensor, "attention_mask": torch.ones_like(tensor)})
    return DataLoader(rows, batch_size=None, shuffle=False)


def modifier(pattern: str) -> SparseGPTModifier:
    """SparseGPT at `pattern`, "0.5" or "2:4"."""
    n, _, m = pattern.partition(":")
    structure = pattern if m else "0:0"
    sparsity = int(n) / int(m) if m else float(pattern)
    return SparseGPTModifier(
        sparsity=sparsity, mask_structure=structure, targets=["Linear"], ignore=["re:.*lm_head"]
    )


def main() -> None:
    """Run as a contender."""
    options = contender.parse_options(__doc__.splitlines()[0])
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    sequences = contender.read_ids(options.ids)
    loaded = contender.memory_bytes("VmRSS")
    total, solver = contender.Stopwatch(), contender.Stopwatch()
    recipe = modifier(options.pattern)
    SparseGPTModifier.compress_modules = solver.wrap(SparseGPTModifier.compress_modules)
    with total.running():
        oneshot(
            model=model,
            dataset=batches(sequences),
            recipe=recipe,
            num_calibration_samples=len(sequences),
            pipeline="sequential",
            propagate_error=options.propagate == "pruned",
        )
    contender.write_result(
        options.out, total, solver, loaded, ["llmcompressor", "torch", "transformers"]
    )
    weights = {
        f"{name}.weight": module.weight.detach().bfloat16().contiguous()
        for name, module in model.model.layers.named_modules(prefix="model.layers")
        if isinstance(module, nn.Linear)
    }
    save_file(weights, options.out / "weights.safetensors")


if __name__ == "__main__":
    main()
