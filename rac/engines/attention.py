"""Attention for decode steps that reads each key/value head once, however many queries share it.

transformers' own sdpa function copies the keys and values for every query head when a mask is
given. With one query token the heads of a group are simply the rows of one small matrix, so nothing
needs copying.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from rac_kernels import decode_attention

NAME = "grouped_sdpa"


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`softmax(q k^T * scaling + mask) v` for `query` [B, H, 1, D], `key`, `value` [B, K, S, D].

    `attention_mask` is bool or additive, [B, 1, 1, S] or None. Returns [B, 1, H, D]. Several query
    tokens, or masks that differ between heads, go to transformers' own function.
    """
    batch, heads, length, head_dim = query.shape
    shared_mask = attention_mask is None or attention_mask.shape[1] == 1
    if length != 1 or not shared_mask or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    scaling = head_dim**-0.5 if scaling is None else scaling
    if query.device.type == "cpu":  # torch's fused CPU kernel is slow for so few queries
        mask = None if attention_mask is None else attention_mask[:, 0, 0]
        if mask is None or mask.dtype == torch.bool:
            mask = mask if mask is None else mask.expand(batch, -1)
            output = decode_attention(query[:, :, 0], key, value, mask=mask, scaling=scaling)
            return output[:, None], None
    grouped = query.view(batch, key.shape[1], heads // key.shape[1], head_dim)
    output = nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=scaling
    )
    return output.reshape(batch, 1, heads, -1), None


def use_grouped_attention(model: PreTrainedModel) -> None:
    """Switch a model that runs transformers' sdpa attention to `grouped_attention`."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, grouped_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
