"""Known token sequences, cut to the budget and batched for teacher forcing."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rac.engines.base import Trace


@dataclass(frozen=True)
class Sequence:
    """Ids that go into the model; the first `prompt_length` of them are the prompt."""

    ids: list[int]
    prompt_length: int


def from_traces(traces: list[Trace]) -> list[Sequence]:
    """What each trace fed into the model while it was decoded."""
    return [Sequence(t.fed_ids, len(t.prompt_ids)) for t in traces]


def cut_to_budget(sequences: list[Sequence], tokens: int, context: int) -> list[Sequence]:
    """The first sequences that hold `tokens` in all; the last one is cut at its end.

    A sequence longer than the model's `context` is cut at its end, too. No window loses context.
    """
    kept: list[Sequence] = []
    for sequence in sequences:
        if tokens <= 0:
            break
        ids = sequence.ids[: min(tokens, context)]
        if ids:
            kept.append(Sequence(ids, min(sequence.prompt_length, len(ids))))
            tokens -= len(ids)
    return kept


@dataclass(frozen=True)
class Batch:
    """Right-padded `ids` and `real` (bool), both [B, T]; `prompt` marks the prompt's tokens."""

    ids: Tensor
    real: Tensor
    prompt: Tensor


def batches(sequences: list[Sequence], batch_tokens: int = 8192) -> Iterator[Batch]:
    """Batches of sequences of like length, at most `batch_tokens` padded tokens each."""
    ordered = sorted(sequences, key=lambda s: len(s.ids), reverse=True)
    start = 0
    while start < len(ordered):
        width = len(ordered[start].ids)
        rows = ordered[start : start + max(1, batch_tokens // width)]
        start += len(rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
        columns = torch.arange(width)
        lengths = torch.tensor([len(row.ids) for row in rows])[:, None]
        prompts = torch.tensor([row.prompt_length for row in rows])[:, None]
        yield Batch(ids, columns < lengths, columns < prompts)
