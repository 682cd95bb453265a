"""Figure 2's numbers: how far a pruned model's hidden states are from the dense model's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

BATCH_TOKENS = 8192
ERROR_TOKENS = 1024  # whose differences are in float32 at once


@torch.inference_mode()
def hidden_states(
    model: PreTrainedModel, sequences: Sequence[list[int]], batch_tokens: int = BATCH_TOKENS
) -> Iterator[Tensor]:
    """Last hidden state (after the final norm) of each sequence: [T, D] on the CPU, model's dtype.

    Neighbouring sequences run together, padded on the right, while they make up to `batch_tokens`;
    a longer one runs alone. No padding is in the result.
    """
    start = 0
    while start < len(sequences):
        end, longest = start + 1, len(sequences[start])
        while end < len(sequences):
            longest = max(longest, len(sequences[end]))
            if longest * (end + 1 - start) > batch_tokens:
                break
            end += 1
        yield from _batch_states(model, sequences[start:end])
        start = end


def _batch_states(model: PreTrainedModel, rows: Sequence[list[int]]) -> Iterator[Tensor]:
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)  # [B, T]
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    states = model.base_model(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
    ).last_hidden_state  # [B, T, D]
    for index, row in enumerate(rows):
        yield states[index, : len(row)].cpu().clone()


def state_errors(dense: Tensor, other: Tensor) -> np.ndarray:
    """||x_dense,t - x_other,t||_2 of two [T, D] states, in float32: [T]."""
    parts = zip(dense.split(ERROR_TOKENS), other.split(ERROR_TOKENS), strict=True)
    return torch.cat([(a.float() - b.float()).norm(dim=-1) for a, b in parts]).numpy()


def token_reconstruction(
    dense: PreTrainedModel,
    pruned: PreTrainedModel,
    prompt_ids: Sequence[list[int]],
    rollout_ids: Sequence[list[int]],
) -> list[np.ndarray]:
    """e_t = ||x_dense,t - x_pruned,t||_2 along each prompt and the dense model's rollout.

    x is the last hidden state, after the final norm. Returns float32 [T] a problem, T = prompt and
    rollout tokens together. Both models are in memory; `rac.report.streaming` has one at a time.

    Source: the paper, section 5.1, "RAC mitigates errors during decoding".
    """
    sequences = [p + r for p, r in zip(prompt_ids, rollout_ids, strict=True)]
    pairs = zip(hidden_states(dense, sequences), hidden_states(pruned, sequences), strict=True)
    return [state_errors(*states) for states in pairs]


@dataclass(frozen=True)
class Comparison:
    """e_t of two models against a dense one along the same sequences, a row a problem.

    `a` and `b` hold float32 [T] arrays; `prompt_lengths` the prompt tokens of each; `names` say
    what the two models are.
    """

    a: list[np.ndarray]
    b: list[np.ndarray]
    prompt_lengths: list[int]
    names: tuple[str, str] = ("prompt", "rac")

    def log2_ratios(self) -> list[np.ndarray]:
        """log2 r_t with r_t = e_t(a) / e_t(b), [T] a problem; 0 where both errors are 0."""
        tiny = np.finfo(np.float32).tiny
        return [
            np.log2(np.maximum(a, tiny) / np.maximum(b, tiny))
            for a, b in zip(self.a, self.b, strict=True)
        ]

    def mean_ratio(self, phase: str) -> float:
        """Geometric mean of r_t over all tokens of the "prompt" or the "decode" phase."""
        parts = zip(self.log2_ratios(), self.prompt_lengths, strict=True)
        cut = [row[:n] if phase == "prompt" else row[n:] for row, n in parts]
        values = np.concatenate(cut)
        return float(2 ** values.mean()) if values.size else float("nan")
