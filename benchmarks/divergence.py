"""How far a pruned model has moved: perplexity and KL(dense || pruned) on the dense one's traces.

Every position that predicts a token of the prompt counts towards "prompt", every one that predicts
a decoded token towards "decode".
"""

from typing import Any

import torch
from torch import Tensor

from rac.engines import Trace

PARTS = ("prompt", "decode")


def token_divergence(dense: Tensor, pruned: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """KL(dense || pruned) and -log p_pruned(target), nats, both [T].

    Args:
        dense: logits [T, V] of the dense model.
        pruned: logits [T, V] of the pruned one.
        targets: the tokens that followed, int64 [T].
    """
    p, q = torch.log_softmax(dense.float(), -1), torch.log_softmax(pruned.float(), -1)
    kl = (p.exp() * (p - q)).sum(-1)
    return kl, -q.gather(-1, targets[:, None])[:, 0]


@torch.inference_mode()
def compare(dense: Any, models: dict[str, Any], traces: list[Trace]) -> dict[str, dict]:
    """Mean KL, perplexity and token counts of each of `models` against `dense`.

    Returns:
        For each name, for each of "prompt" and "decode": `kl` (nats a token), `ppl`, `tokens`.
    """
    sums = {name: {part: [0.0, 0.0, 0] for part in PARTS} for name in models}
    for trace in traces:
        ids = torch.tensor(trace.prompt_ids + trace.output_ids)
        border = len(trace.prompt_ids) - 1  # this position predicts the first decoded token
        reference = dense(input_ids=ids[None, :-1]).logits[0]
        for name, model in models.items():
            logits = reference if model is dense else model(input_ids=ids[None, :-1]).logits[0]
            kl, loss = token_divergence(reference, logits, ids[1:])
            slices = {"prompt": slice(0, border), "decode": slice(border, None)}
            for part, positions in slices.items():
                total = sums[name][part]
                total[0] += float(kl[positions].double().sum())
                total[1] += float(loss[positions].double().sum())
                total[2] += len(kl[positions])
    return {name: {part: _means(*sums[name][part]) for part in PARTS} for name in models}


def _means(kl: float, loss: float, tokens: int) -> dict[str, float]:
    count = max(tokens, 1)
    return {"kl": kl / count, "ppl": float(torch.tensor(loss / count).exp()), "tokens": tokens}
