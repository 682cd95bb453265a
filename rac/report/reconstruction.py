"""Figure 2's numbers: how far a pruned model's hidden states are from the dense model's."""

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rac.engines import Sampling, generate
from rac.files import write_atomic

logger = logging.getLogger(__name__)


@torch.inference_mode()
def hidden_states(
    model: PreTrainedModel, sequences: Sequence[list[int]], batch_size: int = 8
) -> Iterator[Tensor]:
    """Last hidden state (after the final norm) of each sequence: float32 [T, D] on the CPU.

    Sequences are padded on the right to run in batches; no padding is in the result.
    """
    for start in range(0, len(sequences), batch_size):
        rows = sequences[start : start + batch_size]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)  # [B, T]
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        states = model.base_model(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
        ).last_hidden_state  # [B, T, D]
        for index, row in enumerate(rows):
            yield states[index, : len(row)].float().cpu()


def token_errors(
    dense_states: Sequence[Tensor], model: PreTrainedModel, sequences: Sequence[list[int]]
) -> list[np.ndarray]:
    """||x_dense,t - x_model,t||_2 for each token: float32 [T] a sequence."""
    pairs = zip(dense_states, hidden_states(model, sequences), strict=True)
    return [(dense - other).norm(dim=-1).numpy() for dense, other in pairs]


def token_reconstruction(
    dense: PreTrainedModel,
    pruned: PreTrainedModel,
    prompt_ids: Sequence[list[int]],
    rollout_ids: Sequence[list[int]],
) -> list[np.ndarray]:
    """e_t = ||x_dense,t - x_pruned,t||_2 along each prompt and the dense model's rollout.

    x is the last hidden state, after the final norm. Returns float32 [T] a problem, T = prompt and
    rollout tokens together.

    Source: the paper, section 5.1, "RAC mitigates errors during decoding".
    """
    sequences = [p + r for p, r in zip(prompt_ids, rollout_ids, strict=True)]
    return token_errors(list(hidden_states(dense, sequences)), pruned, sequences)


def greedy_rollouts(
    model: PreTrainedModel, prompts: Sequence[list[int]], max_new_tokens: int
) -> list[list[int]]:
    """What `model` decodes greedily after each prompt, in the prompts' order."""
    rollouts: list[list[int]] = [[] for _ in prompts]
    sampling = Sampling(max_new_tokens, temperature=0.0)
    for trace in generate(model, prompts, sampling, batch_size=len(prompts)):
        rollouts[trace.index] = trace.output_ids
    return rollouts


@dataclass(frozen=True)
class Comparison:
    """e_t of two prunings of one dense model along the same sequences, a row a problem.

    `prompt` and `rac` hold float32 [T] arrays; `prompt_lengths` the prompt tokens of each.
    """

    prompt: list[np.ndarray]
    rac: list[np.ndarray]
    prompt_lengths: list[int]

    def log2_ratios(self) -> list[np.ndarray]:
        """log2 r_t with r_t = e_t(prompt) / e_t(rac), [T] a problem; 0 where both errors are 0."""
        tiny = np.finfo(np.float32).tiny
        return [
            np.log2(np.maximum(p, tiny) / np.maximum(r, tiny))
            for p, r in zip(self.prompt, self.rac, strict=True)
        ]

    def mean_ratio(self, phase: str) -> float:
        """Geometric mean of r_t over all tokens of the "prompt" or the "decode" phase."""
        parts = zip(self.log2_ratios(), self.prompt_lengths, strict=True)
        cut = [row[:n] if phase == "prompt" else row[n:] for row, n in parts]
        values = np.concatenate(cut)
        return float(2 ** values.mean()) if values.size else float("nan")


def compare(
    load: Callable[[str], PreTrainedModel],
    checkpoints: dict[str, str],
    prompts: Sequence[list[int]],
    max_new_tokens: int,
) -> Comparison:
    """Compare `checkpoints` "prompt" and "rac" with "dense"; one model is in memory at a time."""
    dense = load(checkpoints["dense"])
    rollouts = greedy_rollouts(dense, prompts, max_new_tokens)
    sequences = [list(p) + r for p, r in zip(prompts, rollouts, strict=True)]
    states = list(hidden_states(dense, sequences))
    del dense
    errors = {
        name: token_errors(states, load(checkpoints[name]), sequences) for name in ("prompt", "rac")
    }
    return Comparison(errors["prompt"], errors["rac"], [len(p) for p in prompts])


def checkpoint_key(folder: Path) -> list[list[Any]]:
    """Names, sizes and times of a checkpoint's files: what tells that it changed."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def cached(path: Path, inputs: Any, compute: Callable[[], Comparison]) -> Comparison:
    """The comparison in `path` when it was made from the same `inputs`, else computed and kept."""
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    if path.is_file():
        try:
            with np.load(path) as data:
                if str(data["key"]) == key:
                    logger.info("Figure 2: errors taken from %s", path)
                    return _unpack(data)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logger.warning("%s cannot be read (%s); computing it again", path, error)
    comparison = compute()
    with write_atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            key=key,
            prompt=np.concatenate(comparison.prompt),
            rac=np.concatenate(comparison.rac),
            lengths=[len(row) for row in comparison.prompt],
            prompt_lengths=comparison.prompt_lengths,
        )
    return comparison


def _unpack(data: Any) -> Comparison:
    cuts = np.cumsum(data["lengths"])[:-1]
    return Comparison(
        np.split(data["prompt"], cuts),
        np.split(data["rac"], cuts),
        [int(n) for n in data["prompt_lengths"]],
    )
