"""A fused forward for attention in decode steps on a CPU: rotation, cache and attention in one.

It stands in for attention modules as Llama's, Qwen2's and Qwen3's are, while a step decodes one
token a sequence over a `SlotCache`; all else takes the module's own forward.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rac.engines.cache import SlotCache, SlotLayer
from rac.engines.fused import DTYPES, Fused
from rac_kernels import decode_attention

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class FusedAttention(Fused):
    """`o_proj(attention(rotated q, k and v))`; what enters o_proj goes into the sink."""

    LAST = "o_proj"

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """The module's output [B, 1, C], and no attention weights."""
        if not args and self.ready(**kwargs):
            return self.decode(**kwargs), None
        if self.sink is None:
            return self.own(*args, **kwargs)
        handle = self.module.o_proj.register_forward_pre_hook(self._capture)
        try:
            return self.own(*args, **kwargs)
        finally:
            handle.remove()

    def ready(self, **kwargs: Any) -> bool:
        """Whether this is a step that `decode` takes."""
        return is_decode_step(**kwargs)

    def _capture(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert self.sink is not None
        self.sink.capture(self.group, args[0])

    def decode(
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
        mask, rotary = attention_inputs(batch, attention_mask, position_embeddings)

        def attend(**ring: Any) -> Tensor:
            output = decode_attention(
                query,
                keys,
                values,
                mask=mask,
                scaling=module.scaling,
                new=(key, value),
                rotary=rotary,
                **ring,
            )
            return output.view(batch, 1, -1)

        return module.o_proj(self._capturing(joined[0], attend))

    def cache_layers(self, cache: SlotCache) -> list[SlotLayer]:
        """The layers of the cache that a step writes to."""
        return [cache.layers[self.module.layer_idx]]

    def value_of(self, output: Any) -> Tensor | None:
        """The tensor in what the module's own forward gives; None: it is of another kind."""
        alone = isinstance(output, tuple) and len(output) == 2 and output[1] is None
        return output[0] if alone else None


def is_decode_step(
    hidden_states: Tensor | None = None,
    position_embeddings: Any = None,
    past_key_values: Any = None,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> bool:
    """Whether keyword arguments are those of a step that attention and layers can take fused."""
    if not isinstance(past_key_values, SlotCache) or past_key_values.cursor is not None:
        return False
    if hidden_states is None or hidden_states.shape[1:2] != (1,) or position_embeddings is None:
        return False
    if hidden_states.dtype not in DTYPES or hidden_states.device.type != "cpu":
        return False
    return attention_mask is None or (
        attention_mask.dtype == torch.bool and attention_mask.shape[1:3] == (1, 1)
    )


def attention_inputs(
    batch: int, mask: Tensor | None, rotary: tuple[Tensor, Tensor]
) -> tuple[Tensor | None, tuple[Tensor, Tensor]]:
    """Mask [B, S] or None, cosine and sine [B, D], from what transformers hands to its layers."""
    mask = None if mask is None else mask[:, 0, 0].expand(batch, -1)
    cosine, sine = (x[:, 0].expand(batch, -1) for x in rotary)
    return mask, (cosine, sine)


def attention_candidate(module: nn.Module) -> FusedAttention | None:
    """The fused forward of a module that has the parts of such attention, else None."""
    named = all(isinstance(getattr(module, name, None), nn.Module) for name in PROJECTIONS)
    parts = named and all(hasattr(module, name) for name in ("head_dim", "scaling", "layer_idx"))
    return FusedAttention(module) if parts else None
