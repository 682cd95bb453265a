"""Attention of one new token a sequence over its key/value cache."""

import torch
from torch import Tensor

from rac_kernels.capture import Ring
from rac_kernels.reference.capture import capture_


def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float,
    new: tuple[Tensor, Tensor] | None,
    rotary: tuple[Tensor, Tensor] | None,
    ring: Ring | None,
) -> Tensor:
    """``softmax(q k^T * scaling + mask) v`` [B, H, D], in float32, rounded once.

    Shapes as in :func:`rac_kernels.decode_attention`. ``x cos + (-x_2, x_1) sin`` rotates the two
    halves ``x_1, x_2`` of a query or key (RoFormer, Su et al. 2021), in its dtype.
    """
    batch, heads, width = query.shape
    if new is not None:
        key, value = new
        keys[:, :, -1] = key if rotary is None else _rotated(key, *rotary)
        values[:, :, -1] = value
    if rotary is not None:
        query = _rotated(query, *rotary)
    grouped = query.reshape(batch, keys.shape[1], heads // keys.shape[1], width).float()
    scores = torch.matmul(grouped, keys.float().transpose(-1, -2)) * scaling  # [B, K, G, S]
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        # Where nothing is attended over, zeros.
        scores = scores.masked_fill(~mask.any(-1)[:, None, None, None], 0)
    probabilities = scores.softmax(-1)
    if mask is not None:
        probabilities = probabilities * mask[:, None, None]
    output = torch.matmul(probabilities, values.float()).reshape(batch, heads, width)
    output = output.to(query.dtype)
    if ring is not None:
        capture_(output.flatten(1), ring)
    return output


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate x [B, heads, D] by cosine and sine [B, D]."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cosine[:, None] + turned * sine[:, None]
