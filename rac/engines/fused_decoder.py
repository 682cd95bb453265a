"""A fused forward for a model's decoder in decode steps on a CPU: all its layers in one call.

transformers' own makes a mask and the rotation's cosines and sines, and calls layer after layer
from Python: with the threads that each layer wakes, a third of a small model's step. What it would
hand to every layer is known here: a step's tokens attend over whatever is not padding. Embeddings
and the last norm stay modules, the head and what follows it the model's own forward.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

from rac.engines.cache import SlotCache, SlotLayer
from rac.engines.fused_layer import FusedLayer
from rac.engines.rotary import RotaryTable
from rac.engines.watch import Watch, hooks
from rac_kernels import CaptureBuffer, DecoderLayer, decode_layers

PARTS = ("embed_tokens", "layers", "norm", "rotary_emb")
INPUTS = ("input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache")
LONGEST = 1 << 22  # columns of a mask that is made to look at it
RECORDED = ("output_hidden_states", "output_attentions")  # by hooks of transformers' own


class FusedDecoder:
    """Stands in for the forward of embeddings, layers and last norm."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.own = module, module.forward
        functools.update_wrapper(self, self.own)  # its signature is looked at
        self._forget()

    def _forget(self) -> None:
        self.watch: Watch | None = None
        self.fused: list[FusedLayer] = []
        self.layers: list[DecoderLayer] = []
        self.hooks: list[dict] = []
        self.rotary: RotaryTable | None = None
        self.preferred: dict[int, bool] = {}  # by batch

    def __getstate__(self) -> dict[str, Any]:
        """Without what a copy finds anew in its own modules."""
        empty = {"watch": None, "fused": [], "layers": [], "hooks": [], "rotary": None}
        return vars(self) | empty | {"preferred": {}}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The last hidden state [B, 1, C], and the cache, in the model's own kind of output."""
        if args or not self.ready(**kwargs):
            return self.own(*args, **kwargs)
        x = self.module.embed_tokens(kwargs["input_ids"])
        buffers, active = self._staging(x)
        if buffers is None or x.dtype != self.layers[0].dtype:
            return self.own(**kwargs | {"input_ids": None, "inputs_embeds": x})
        hidden = self._run(x, buffers, active, **kwargs)
        cache = kwargs["past_key_values"]
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=cache)

    def ready(self, **kwargs: Any) -> bool:
        """Whether this is a decode step, no hook looks inside, and the layers can be one call."""
        ids, positions, mask, cache = (
            kwargs.get(name)
            for name in ("input_ids", "position_ids", "attention_mask", "past_key_values")
        )
        if torch.is_grad_enabled() or not isinstance(cache, SlotCache) or cache.cursor is not None:
            return False
        if any(kwargs[name] is not None for name in kwargs.keys() - INPUTS):
            return False
        if (
            ids is None
            or positions is None
            or ids.shape[1:] != (1,)
            or ids.shape != positions.shape
        ):
            return False
        if mask is not None and mask.shape != (ids.shape[0], cache.used + 1):
            return False
        config = self.module.config
        if any(getattr(config, name, False) for name in RECORDED):
            return False
        if self.watch is None or not self.watch.unchanged:
            self._build()
        if config.num_hidden_layers != len(self.layers) or any(self.hooks):
            return False
        batch = ids.shape[0]
        if batch not in self.preferred:
            self.preferred[batch] = all(layer.prefers(batch) for layer in self.layers)
        return self.preferred[batch]

    def _build(self) -> None:
        """Find what is to be called; no layers where one is not fused, or not one call."""
        self._forget()
        fused = [vars(layer).get("forward") for layer in self.module.layers]
        if all(isinstance(each, FusedLayer) for each in fused):
            layers = [each.built() for each in fused]
            if None not in layers and [f.layer_index() for f in fused] == list(range(len(fused))):
                self.fused, self.layers = fused, layers
        self.hooks = hooks(self.module.layers)
        self.rotary = RotaryTable(self.module.rotary_emb)
        self.watch = Watch(self.module)

    def _staging(self, x: Tensor) -> tuple[list[CaptureBuffer | None] | None, Tensor | None]:
        """The rings of every layer's groups and the active rows; None: not all are staged."""
        buffers: list[CaptureBuffer | None] = []
        active = None
        for fused in self.fused:
            rings, rows = fused.staging(x)
            if rings is None:
                return None, None
            if rings and not buffers:
                buffers = [None] * 4 * self.fused.index(fused)
            buffers += rings or ([None] * 4 if buffers else [])
            active = rows if active is None else active
        return buffers, active

    def decode(self, input_ids: Tensor, **kwargs: Any) -> Tensor:
        """The last hidden state [B, 1, C] of ids [B, 1]; the cache gets one more column."""
        return self._run(self.module.embed_tokens(input_ids), [], None, **kwargs)

    def _run(
        self,
        x: Tensor,
        buffers: list[CaptureBuffer | None],
        active: Tensor | None,
        *,
        position_ids: Tensor,
        past_key_values: SlotCache,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        assert self.rotary is not None
        batch = x.shape[0]
        mask = None if attention_mask is None else attention_mask.bool()
        if mask is not None and bool(mask.all()):
            mask = None
        hidden = decode_layers(
            self.layers,
            x.view(batch, -1),
            past_key_values.storage(),
            rotary=self.rotary(x, position_ids),
            columns=(past_key_values.start, past_key_values.used + 1),
            mask=mask,
            buffers=buffers,
            active=active,
        )
        return self.module.norm(hidden.view(batch, 1, -1))

    def cache_layers(self, cache: SlotCache) -> list[SlotLayer]:
        """The layers of the cache that a step writes to."""
        return list(cache.layers)

    def value_of(self, output: Any) -> Tensor | None:
        """The tensor in what the module's own forward gives; None: it is of another kind."""
        return output.last_hidden_state if type(output) is BaseModelOutputWithPast else None


def decoder_candidate(module: nn.Module) -> FusedDecoder | None:
    """The fused forward of a module that has the parts, all of whose layers are fused."""
    if not all(isinstance(getattr(module, name, None), nn.Module) for name in PARTS):
        return None
    layers = module.layers
    fused = isinstance(layers, nn.ModuleList) and len(layers) > 0 and hasattr(module, "config")
    fused = fused and all(isinstance(vars(layer).get("forward"), FusedLayer) for layer in layers)
    return FusedDecoder(module) if fused else None


def sees_all(fused: FusedDecoder, prefilled: Cache) -> bool:
    """Whether the model's own forward has every layer attend over all that is not padding.

    It is looked at in a step at the end of the longest context, with layers that do nothing: there
    a sliding window shows. They must also get one rotation, that of the tokens' positions.
    `prefilled` is a cache of two rows.
    """
    module = fused.module
    columns = getattr(module.config, "max_position_embeddings", None)
    if columns is None or columns > LONGEST:
        return False
    cache = SlotCache(prefilled, columns, static=False)
    cache.end = columns - 1
    mask = torch.ones(2, columns, dtype=torch.long)
    mask[1, 0] = 0
    positions = mask.sum(1, keepdim=True) - 1
    seen: list[dict[str, Any]] = []

    def record(hidden_states: Tensor, **kwargs: Any) -> Tensor:
        seen.append(kwargs | {"x": hidden_states})
        return hidden_states

    own = [layer.forward for layer in module.layers]
    for layer in module.layers:
        layer.forward = record
    try:
        fused.own(
            input_ids=torch.arange(2)[:, None],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        rotary = module.rotary_emb(seen[0]["x"], positions)
        return len(seen) == len(own) and all(_plain(step, mask, rotary) for step in seen)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError):
        return False  # it is called otherwise
    finally:
        for layer, forward in zip(module.layers, own, strict=True):
            layer.forward = forward


def _plain(step: dict[str, Any], mask: Tensor, rotary: tuple[Tensor, Tensor]) -> bool:
    """Whether a layer was handed the mask of padding and this rotation."""
    masked = torch.equal(step["attention_mask"], mask.bool()[:, None, None])
    pairs = zip(step["position_embeddings"], rotary, strict=True)
    return masked and all(torch.equal(a, b) for a, b in pairs)
