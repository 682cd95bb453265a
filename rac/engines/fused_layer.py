"""A fused forward for whole decoder layers in decode steps on a CPU.

Calling a layer's modules one by one from Python takes longer than its norms, activations and
attention together. Here a step's layer is one call, where norms, attention and MLP are fused
already and the weights are in 16 bits or packed; what they compute, and capture, stays the same.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rac.engines.cache import SlotCache, SlotLayer
from rac.engines.fused import FusedMLP, FusedNorm
from rac.engines.fused_attention import FusedAttention, attention_inputs, is_decode_step
from rac.engines.stacked import StackedForward
from rac.engines.watch import Watch, hooks
from rac.packed.linears import PackedLinear
from rac_kernels import CaptureBuffer, DecoderLayer

PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
KINDS = (FusedNorm, FusedAttention, FusedNorm, FusedMLP)
HEAD_NORMS = ("q_norm", "k_norm")
LINEARS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


class FusedLayer:
    """Stands in for a decoder layer's forward."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.own = module, module.forward
        self.parts = [getattr(module, name).forward for name in PARTS]
        self.watch: Watch | None = None
        self.hooks: list[dict] = []
        self.layer: DecoderLayer | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what a copy finds anew in its own modules."""
        return vars(self) | {"watch": None, "hooks": [], "layer": None}

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The layer's output [B, 1, C]."""
        if not args and self.ready(hidden_states, **kwargs):
            buffers, active = self.staging(hidden_states)
            if buffers is not None:
                return self.decode(hidden_states, buffers=buffers, active=active, **kwargs)
        return self.own(hidden_states, *args, **kwargs)

    def ready(self, hidden_states: Tensor, **kwargs: Any) -> bool:
        """Whether this is a decode step, no hook looks inside, and the layer can be one call."""
        if torch.is_grad_enabled() or not is_decode_step(hidden_states=hidden_states, **kwargs):
            return False
        layer = self.built()
        if layer is None or any(self.hooks):
            return False
        return hidden_states.dtype == layer.dtype and layer.prefers(hidden_states.shape[0])

    def built(self) -> DecoderLayer | None:
        """The layer of the present weights, made anew where they or their modules are others."""
        if self.watch is None or not self.watch.unchanged:
            self.layer, self.watch = self._build(), Watch(self.module)
            self.hooks = hooks(self.module)[2:]  # a layer's own hooks are called
        return self.layer

    def _build(self) -> DecoderLayer | None:
        """The layer of the present weights; None where they are of a kind that it does not take."""
        if [getattr(self.module, name).forward for name in PARTS] != self.parts:
            return None
        attention = self.module.self_attn
        owners = (attention, attention, self.module.mlp, self.module.mlp)
        joined = [
            _joined([getattr(owner, name) for name in names])
            for owner, names in zip(owners, LINEARS, strict=True)
        ]
        if None in joined:
            return None
        norms = [(part.module.weight, part.module.variance_epsilon) for part in self.parts[::2]]
        qkv, output, gate_up, down = joined
        normed = {}
        if hasattr(attention, "q_norm"):
            for name in HEAD_NORMS:
                norm = getattr(attention, name)
                if not isinstance(norm.forward, FusedNorm):
                    return None
                normed[name] = (norm.weight, norm.variance_epsilon)
        groups = attention.k_proj.out_features // attention.head_dim
        heads = (attention.q_proj.out_features // attention.head_dim, groups)
        try:
            return DecoderLayer(
                norms[0],
                qkv,
                output,
                norms[1],
                gate_up,
                down,
                heads,
                query_norm=normed.get("q_norm"),
                key_norm=normed.get("k_norm"),
                scaling=attention.scaling,
            )
        except (TypeError, ValueError):
            return None

    def staging(
        self, hidden_states: Tensor
    ) -> tuple[tuple[CaptureBuffer | None, ...] | None, Tensor | None]:
        """The rings of the four groups and the active rows; None: what is read is not staged."""
        sinks = [part.sink for part in self.parts]
        if not any(sinks):
            return (), None
        assert self.layer is not None
        columns, features = self.layer.columns, self.layer.features
        sizes = (columns, features[0], columns, features[1])
        buffers: list[CaptureBuffer | None] = []
        active = None
        for part, sink, size in zip(self.parts, sinks, sizes, strict=True):
            buffer = None
            if sink is not None:
                rows = hidden_states[..., :1].expand(-1, -1, size)
                buffer, active = sink.staging(part.group, rows)
                if buffer is None:
                    return None, None
            buffers.append(buffer)
        return tuple(buffers), active

    def decode(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: SlotCache,
        attention_mask: Tensor | None = None,
        buffers: tuple[CaptureBuffer | None, ...] = (),
        active: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The output [B, 1, C] of hidden_states [B, 1, C]; the cache gets one more column."""
        assert self.layer is not None
        batch = hidden_states.shape[0]
        keys, values = past_key_values.layers[self.layer_index()].columns()
        mask, rotary = attention_inputs(batch, attention_mask, position_embeddings)
        y = self.layer(
            hidden_states.view(batch, -1),
            keys,
            values,
            rotary=rotary,
            mask=mask,
            buffers=buffers,
            active=active,
        )
        return y.view(batch, 1, -1)

    def layer_index(self) -> int:
        """Of the cache's layer."""
        return self.module.self_attn.layer_idx

    def cache_layers(self, cache: SlotCache) -> list[SlotLayer]:
        """The layers of the cache that a step writes to."""
        return [cache.layers[self.layer_index()]]

    def value_of(self, output: Any) -> Tensor | None:
        """The tensor in what the module's own forward gives; None: it is of another kind."""
        return output if isinstance(output, Tensor) else None


def _joined(modules: list[nn.Module]) -> tuple | None:
    """Weight and bias of linears that are one product; None where they are not."""
    forwards = [module.forward for module in modules]
    if all(isinstance(forward, StackedForward) for forward in forwards):
        stacked = forwards[0].stacked
        if stacked.linears != modules or not stacked.intact:
            return None
        if stacked.weight is None:
            return stacked.joint.packed, stacked.joint.bias
        return stacked.weight.detach(), stacked.bias
    if len(modules) == 1 and isinstance(modules[0], PackedLinear):
        return modules[0].packed, modules[0].bias
    return None


def layer_candidate(module: nn.Module) -> FusedLayer | None:
    """The fused forward of a module whose parts are fused, else None."""
    parts = [getattr(module, name, None) for name in PARTS]
    if not all(isinstance(part, nn.Module) for part in parts):
        return None
    fused = all(isinstance(p.forward, kind) for p, kind in zip(parts, KINDS, strict=True))
    return FusedLayer(module) if fused else None
