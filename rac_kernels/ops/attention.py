"""Attention over a key/value cache: validate, choose an implementation, call it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import FLOATS, check_same_device, check_tensor, refuse
from rac_kernels._choice import choose, native_producer
from rac_kernels.capture import CaptureBuffer
from rac_kernels.ops.capture import ring_of
from rac_kernels.reference.decode_attention import decode_attention as reference_attention


def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    mask: Tensor | None = None,
    scaling: float | None = None,
    new: tuple[Tensor, Tensor] | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
    buffer: CaptureBuffer | None = None,
    active: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """``softmax(q k^T * scaling + mask) v`` of one new token a sequence, over its cache.

    The query heads of a group read its keys and values once, together. With ``new`` the step's own
    key and value are first written into the last column; with ``rotary`` query and new key are
    rotated before (RoFormer, Su et al. 2021, halves ``x_1, x_2``: ``x cos + (-x_2, x_1) sin``, in
    their dtype); with a buffer the output's active rows [H D] are appended to it. The rest is in
    float32, rounded once.

    Args:
        query: fp32, bf16 or fp16 [B, H, D].
        keys: [B, K, S, D] in the dtype of ``query``, H a multiple of K, S >= 1; a view of a longer
            cache will do.
        values: likewise.
        mask: bool [B, S], False where a column is not attended over; None: all are. Where none is,
            the output is 0.
        scaling: None: ``D ** -0.5``.
        new: key and value [B, K, D].
        rotary: cosine and sine [B, D], D even.
        buffer: of H D features; None: nothing is captured.
        active: bool, B elements; as in :func:`capture_`.
        impl: "auto", "reference", "native" (CPU; fp32 and bf16, no backward: auto takes the
            reference where one is needed).

    Returns:
        [B, H, D], contiguous, in the dtype of ``query``.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or ``impl`` cannot run; cache
            and buffer are untouched.
    """
    op = "decode_attention"
    _check(op, query, keys, values, mask, new or (), rotary or ())
    width = query.shape[-1]
    scaling = width**-0.5 if scaling is None else scaling
    tensors = (query, keys, values, *(new or ()), *(rotary or ()))
    why_not = None if impl == "reference" else native_producer(*tensors)
    name = choose(op, impl, {"reference", "native"}, why_not)
    ring = None
    if buffer is not None:
        active = None if active is None else active.reshape(-1)
        ring = ring_of(op, buffer, query.flatten(1), active)
    if name == "reference" or not query.numel():
        return reference_attention(query, keys, values, mask, scaling, new, rotary, ring)
    if mask is not None and mask.stride(1) != 1:
        mask = mask.contiguous()
    if new is not None:
        new = _heads_in_order(new[0], width), _heads_in_order(new[1], width)
    if rotary is not None:
        rotary = rotary[0].contiguous(), rotary[1].contiguous()
    query = _heads_in_order(query, width)
    return _native.decode_attention(query, keys, values, mask, scaling, new, rotary, ring)


def _heads_in_order(x: Tensor, width: int) -> Tensor:
    """View or copy x [B, heads, D] with its heads one after the other."""
    ordered = x.stride(2) == 1 and (x.stride(1) == width or x.shape[1] == 1)
    return x if ordered else x.contiguous()


def _check(
    op: str,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    new: Sequence[Tensor],
    rotary: Sequence[Tensor],
) -> None:
    """Refuse what does not fit `query`; this runs for every layer of a decode step."""
    _check_like(op, "query", query, query)
    if query.ndim != 3:
        refuse(op, "query [B, H, D]", list(query.shape))
    check_cache(op, query, query.shape, keys, values, mask)
    batch, _, width = query.shape
    for index, tensor in enumerate(new):
        _check_like(op, f"new[{index}]", tensor, query)
        if tensor.shape != (batch, keys.shape[1], width):
            expected = f"new[{index}] {[batch, keys.shape[1], width]}"
            refuse(op, expected, list(tensor.shape))
    if rotary:
        check_rotary(op, query, rotary, width)


def check_cache(
    op: str,
    like: Tensor,
    query: Sequence[int],
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
) -> None:
    """Refuse keys, values and mask that do not fit a query [B, H, D], in dtype and device of like.

    Raises:
        ValueError, TypeError: says what does not fit.
    """
    batch, heads, width = query
    _check_like(op, "keys", keys, like)
    _check_like(op, "values", values, like)
    fits = keys.ndim == 4 and keys.shape[0] == batch and keys.shape[3] == width
    if not fits or not keys.shape[1] or heads % keys.shape[1] or not keys.shape[2]:
        expected = f"keys [{batch}, K, S, {width}] with K dividing {heads} and S >= 1"
        refuse(op, expected, list(keys.shape))
    if values.shape != keys.shape:
        refuse(op, f"values {list(keys.shape)}", list(values.shape))
    for name, tensor in (("keys", keys), ("values", values)):
        if tensor.stride(3) != 1 and width > 1:
            refuse(op, f"{name} with a unit last stride", tensor.stride())
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape != (batch, keys.shape[2]):
            expected = f"mask bool [{batch}, {keys.shape[2]}]"
            refuse(op, expected, f"{mask.dtype} {list(mask.shape)}")
        if mask.device != like.device:
            check_same_device(op, query=like, mask=mask)


def check_rotary(op: str, like: Tensor, rotary: Sequence[Tensor], width: int) -> None:
    """Refuse what is not cosine and sine [B, D] for heads of D features, in dtype of like [B, ...].

    Raises:
        ValueError, TypeError: says what does not fit.
    """
    for index, tensor in enumerate(rotary):
        _check_like(op, f"rotary[{index}]", tensor, like)
        if tensor.shape != (like.shape[0], width):
            refuse(op, f"rotary[{index}] {[like.shape[0], width]}", list(tensor.shape))
    if width % 2:
        refuse(op, "an even D to rotate", width)


def _check_like(op: str, name: str, tensor: Tensor, like: Tensor) -> None:
    check_tensor(op, name, tensor, FLOATS)
    if tensor.dtype != like.dtype:
        raise TypeError(f"{op}: expected {name} in {like.dtype} like query, got {tensor.dtype}")
    if tensor.device != like.device:
        check_same_device(op, query=like, **{name: tensor})
