"""Fused forwards of attention, decoder layers and all of them, put in where they compute the same.

Whether a module is one that a fused forward can stand in for is not read off its class: in one tiny
decode step of the model, made when it is loaded, both must give the same bits.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from rac.engines.attention import NAME
from rac.engines.cache import SlotCache
from rac.engines.fused_attention import FusedAttention, attention_candidate
from rac.engines.fused_decoder import FusedDecoder, decoder_candidate, sees_all
from rac.engines.fused_layer import FusedLayer, layer_candidate
from rac.engines.inputs import call_model, left_pad, prefill

TOKENS = 3  # of the longer of two sequences, before the tiny step


Candidate = FusedAttention | FusedLayer | FusedDecoder
CANDIDATES: dict[str, Callable[[nn.Module], Candidate | None]] = {
    "attention": attention_candidate,
    "layer": layer_candidate,
    "decoder": decoder_candidate,
}


@torch.inference_mode()
def fuse_step(model: PreTrainedModel) -> dict[str, int]:
    """Fuse what a decode step of `model` on a CPU lets be fused; how many of each of CANDIDATES.

    After `rac.engines.stacked.stack` and `rac.engines.fused.fuse`, whose forwards it builds on.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    count = dict.fromkeys(CANDIDATES, 0)
    if not on_cpu or model.config._attn_implementation != NAME:
        return count
    ids, mask = left_pad([list(range(TOKENS)), list(range(TOKENS - 1))], torch.device("cpu"))
    prefilled = None
    for name, candidate in CANDIDATES.items():
        found = [fused for module in model.modules() if (fused := candidate(module)) is not None]
        if not found:
            break
        if prefilled is None:
            prefilled = prefill(model, ids, mask)[1]
        if name == "decoder":
            found = [fused for fused in found if sees_all(fused, prefilled)]
        count[name] = _fuse_agreeing(found, partial(_decode, model, prefilled, mask))
    return count


def _fuse_agreeing(found: Sequence[Candidate], decode: Callable[[], None]) -> int:
    """Put in those of `found` that give the same as the modules' own forwards; how many."""
    agreed: list[Candidate] = []

    def compare(fused: Candidate) -> Callable:
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


def _same(fused: Candidate, output: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the fused forward gives `output`, too, and leaves the same in the cache."""
    layers = fused.cache_layers(kwargs["past_key_values"])
    held = [layer.buffers for layer in layers]
    for layer in layers:
        layer.buffers = tuple(buffer.clone() for buffer in layer.buffers)
        for buffer in layer.columns():
            buffer[:, :, -1] = 0
    try:
        ours = fused.decode(**kwargs)
        left = [layer.buffers for layer in layers]
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False  # it has other parts, or other shapes
    finally:
        for layer, buffers in zip(layers, held, strict=True):
            layer.buffers = buffers
    pairs = [pair for a, b in zip(held, left, strict=True) for pair in zip(a, b, strict=True)]
    value = fused.value_of(output)
    same = value is not None and torch.equal(value, ours)
    return same and all(torch.equal(a, b) for a, b in pairs)


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
