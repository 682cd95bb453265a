"""What every forward of a transformers model needs to be told."""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


def stop_token_ids(model: PreTrainedModel) -> set[int]:
    """The ids that end a sequence, from the generation config and the model config."""
    stops: set[int] = set()
    for config in (model.generation_config, model.config.get_text_config()):
        value = getattr(config, "eos_token_id", None)
        stops.update(value if isinstance(value, list) else [] if value is None else [value])
    return stops


def context_length(model: PreTrainedModel) -> int:
    """The most tokens that one sequence may have."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31


def accepted_inputs(model: PreTrainedModel) -> frozenset[str]:
    """The names of what the model's own forward takes."""
    return frozenset(inspect.signature(model.forward).parameters)


def call_model(
    model: PreTrainedModel, accepted: frozenset[str] | None = None, **inputs: Any
) -> Any:
    """The model's own forward, told those of `inputs` that it takes.

    `accepted` is what `accepted_inputs` gave, for a caller of many steps.
    """
    accepted = accepted_inputs(model) if accepted is None else accepted
    return model(**{name: value for name, value in inputs.items() if name in accepted})


def prefill(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, DynamicCache]:
    """The last column's logits [B, V] and the cache of rows as `left_pad` aligns them, [B, T]."""
    cache = DynamicCache()
    logits = call_model(
        model,
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return logits, cache


def left_pad(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """`ids` and `mask`, both int64 [B, T], with the rows aligned on the right."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, width - len(row) :] = torch.tensor(row)
        mask[index, width - len(row) :] = 1
    return ids.to(device), mask.to(device)
