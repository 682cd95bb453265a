"""A fused forward for attention in decode steps on a CPU: rotation, cache and attention in one.

It stands in for attention modules as Llama's, Qwen2's and Qwen3's are, while a step decodes one
token a sequence over a `SlotCache`; all else takes the module's own forward. Whether a module is
such a one is not read off its class: in one tiny decode step of the model, made when it is loaded,
both forwards must give the same bits.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from rac.engines.attention import NAME
from rac.engines.cache import SlotCache
from rac.engines.fused import DTYPES, Fused
from rac.engines.inputs import call_model
from rac_kernels import decode_attention

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
DECODED = 3  # columns of the tiny step


class FusedAttention(Fused):
    """`o_proj(attention(rotated q, k and v of the projections))`; what enters o_proj is captured."""

    LAST = "o_proj"

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """The module's output [B, 1, C], and no attention weights."""
        if not args and _is_decode_step(**kwargs):
            return self._decode(**kwargs), None
        if self.sink is None:
            return self.own(*args, **kwargs)
        handle = self.module.o_proj.register_forward_pre_hook(self._capture)
        try:
            return self.own(*args, **kwargs)
        finally:
            handle.remove()

    def _capture(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert self.sink is not None
        self.sink.capture(self.group, args[0])

    def _decode(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: SlotCache,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The output [B, 1, C] of hidden_states [B, 1, C]; the cache gets one more column."""
        module = self.module
        batch = hidden_states.shape[0]
        projections = (module.q_proj, module.k_proj, module.v_proj)
        joined = [projection(hidden_states) for projection in projections]  # [B, 1, heads D]
        query, key, value = (x.view(batch, -1, module.head_dim) for x in joined)
        if hasattr(module, "q_norm"):
            query, key = module.q_norm(query), module.k_norm(key)
        keys, values = past_key_values.layers[module.layer_idx].columns()
        mask = None if attention_mask is None else attention_mask[:, 0, 0].expand(batch, -1)
        cosine, sine = (x[:, 0].expand(batch, -1) for x in position_embeddings)

        def attend(**ring: Any) -> Tensor:
            output = decode_attention(
                query,
                keys,
                values,
                mask=mask,
                scaling=module.scaling,
                new=(key, value),
                rotary=(cosine, sine),
                **ring,
            )
            return output.view(batch, 1, -1)

        return module.o_proj(self._capturing(joined[0], attend))


def _is_decode_step(
    hidden_states: Tensor | None = None,
    position_embeddings: Any = None,
    past_key_values: Any = None,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> bool:
    """Whether the arguments are those of a step that `FusedAttention` can take."""
    if not isinstance(past_key_values, SlotCache) or past_key_values.cursor is not None:
        return False
    if hidden_states is None or hidden_states.shape[1:2] != (1,) or position_embeddings is None:
        return False
    if hidden_states.dtype not in DTYPES or hidden_states.device.type != "cpu":
        return False
    return attention_mask is None or (
        attention_mask.dtype == torch.bool and attention_mask.shape[1:3] == (1, 1)
    )


@torch.inference_mode()
def fuse_attention(model: PreTrainedModel) -> int:
    """Fuse every attention of `model`, on a CPU, that computes what the fused one does; how many."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if not on_cpu or model.config._attn_implementation != NAME:
        return 0
    found = [FusedAttention(module) for module in model.modules() if _candidate(module)]
    agreed: list[FusedAttention] = []

    def compare(fused: FusedAttention) -> Callable:
        def own(*args: Any, **kwargs: Any) -> Any:
            output = fused.own(*args, **kwargs)
            if not args and _is_decode_step(**kwargs) and _same(fused, output, kwargs):
                agreed.append(fused)
            return output

        return own

    for fused in found:
        fused.module.forward = compare(fused)
    try:
        if found:
            _decode_once(model)
    finally:
        for fused in found:
            fused.module.forward = fused.own
    for fused in agreed:
        fused.module.forward = fused
    return len(agreed)


def _candidate(module: nn.Module) -> bool:
    named = all(isinstance(getattr(module, name, None), nn.Module) for name in PROJECTIONS)
    return named and all(hasattr(module, name) for name in ("head_dim", "scaling", "layer_idx"))


def _same(fused: FusedAttention, output: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the fused forward gives `output`, too, and leaves the same in the cache."""
    layer = kwargs["past_key_values"].layers[fused.module.layer_idx]
    held, layer.buffers = layer.buffers, tuple(buffer.clone() for buffer in layer.buffers)
    for buffer in layer.columns():
        buffer[:, :, -1] = 0
    try:
        ours = fused._decode(**kwargs)
        same = all(torch.equal(a, b) for a, b in zip(held, layer.buffers, strict=True))
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False  # it has other parts, or other shapes
    finally:
        layer.buffers = held
    alone = isinstance(output, tuple) and len(output) == 2 and output[1] is None
    return same and alone and torch.equal(output[0], ours)


def _decode_once(model: PreTrainedModel) -> None:
    """One decode step of two sequences, of which one is shorter."""
    ids = torch.arange(2 * DECODED).view(2, DECODED)
    mask = torch.ones_like(ids)
    mask[1, 0] = 0
    prefilled = DynamicCache()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    shared = {"use_cache": True, "logits_to_keep": 1}
    call_model(
        model,
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=prefilled,
        **shared,
    )
    cache = SlotCache(prefilled, 2 * DECODED, static=False)
    cache.open_step()
    call_model(
        model,
        input_ids=ids[:, :1],
        attention_mask=torch.cat((mask, mask[:, -1:]), dim=1),
        position_ids=positions[:, -1:] + 1,
        past_key_values=cache,
        **shared,
    )
