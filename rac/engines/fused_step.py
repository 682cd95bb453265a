"""Fused forwards of attention and of decoder layers, put in where they compute the same.

Whether a module is one that a fused forward can stand in for is not read off its class: in one tiny
decode step of the model, made when it is loaded, both must give the same bits.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from rac.engines.attention import NAME
from rac.engines.cache import SlotCache
from rac.engines.fused_attention import FusedAttention, attention_candidate
from rac.engines.fused_layer import FusedLayer, layer_candidate
from rac.engines.inputs import call_model, left_pad, prefill

TOKENS = 3  # of the longer of two sequences, before the tiny step


@torch.inference_mode()
def fuse_step(model: PreTrainedModel) -> dict[str, int]:
    """Fuse what a decode step of `model` on a CPU lets be fused; how many "attention" and "layer".

    After `rac.engines.stacked.stack` and `rac.engines.fused.fuse`, whose forwards it builds on.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    count = {"attention": 0, "layer": 0}
    if not on_cpu or model.config._attn_implementation != NAME:
        return count
    ids, mask = left_pad([list(range(TOKENS)), list(range(TOKENS - 1))], torch.device("cpu"))
    prefilled = None
    for name, candidate in (("attention", attention_candidate), ("layer", layer_candidate)):
        found = [fused for module in model.modules() if (fused := candidate(module)) is not None]
        if not found:
            break
        if prefilled is None:
            prefilled = prefill(model, ids, mask)[1]
        count[name] = _fuse_agreeing(found, partial(_decode, model, prefilled, mask))
    return count


def _fuse_agreeing(found: list[FusedAttention | FusedLayer], decode: Callable[[], None]) -> int:
    """Put in those of `found` that give the same as the modules' own forwards; how many."""
    agreed: list[FusedAttention | FusedLayer] = []

    def compare(fused: FusedAttention | FusedLayer) -> Callable:
        def own(*args: Any, **kwargs: Any) -> Any:
            output = fused.own(*args, **kwargs)
            if args and isinstance(fused, FusedLayer):
                kwargs, args = kwargs | {"hidden_states": args[0]}, args[1:]
            if not args and fused.ready(**kwargs) and _same(fused, output, kwargs):
                agreed.append(fused)
            return output

        return own

    for fused in found:
        fused.module.forward = compare(fused)
    try:
        decode()
    finally:
        for fused in found:
            fused.module.forward = fused.own
    for fused in agreed:
        fused.module.forward = fused
    return len(agreed)


def _same(fused: FusedAttention | FusedLayer, output: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the fused forward gives `output`, too, and leaves the same in the cache."""
    layer = kwargs["past_key_values"].layers[fused.layer_index()]
    held, layer.buffers = layer.buffers, tuple(buffer.clone() for buffer in layer.buffers)
    for buffer in layer.columns():
        buffer[:, :, -1] = 0
    try:
        ours = fused.decode(**kwargs)
        same = all(torch.equal(a, b) for a, b in zip(held, layer.buffers, strict=True))
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False  # it has other parts, or other shapes
    finally:
        layer.buffers = held
    if isinstance(fused, FusedAttention):  # beside no attention weights
        alone = isinstance(output, tuple) and len(output) == 2 and output[1] is None
        output = output[0] if alone else None
    return same and isinstance(output, Tensor) and torch.equal(output, ours)


def _decode(model: PreTrainedModel, prefilled: Cache, mask: Tensor) -> None:
    """One decode step of two sequences whose prompts' `mask` [2, T] is given."""
    cache = SlotCache(prefilled, 2 * TOKENS, static=False)
    cache.open_step()
    call_model(
        model,
        input_ids=torch.arange(2)[:, None],
        attention_mask=torch.cat((mask, mask[:, -1:]), dim=1),
        position_ids=mask.sum(1, keepdim=True),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
