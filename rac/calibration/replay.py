"""Replay: known sequences through one decoder layer at a time, with the model's own forward.

For each layer and batch the model's forward runs with every other layer switched off: the layers
below hand their input on, the layer itself gets the stored hidden states together with whatever
masks and rotary embeddings the model passes to *it*, and the layers above are never reached.
Memory holds one layer's Hessians and the hidden states.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rac.calibration.capture import HessianCollector
from rac.calibration.groups import Group
from rac.calibration.sequences import Batch
from rac.engines.inputs import call_model
from rac.models import decoder_layers


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """The forward has passed the layer that it was run for."""


@contextmanager
def _forwards(layers: nn.ModuleList, replacements: dict[int, Any]) -> Iterator[None]:
    """Replace the `forward` of some layers for the length of a `with` block."""
    before = {index: vars(layers[index]).get("forward") for index in replacements}
    try:
        for index, function in replacements.items():
            layers[index].forward = function
        yield
    finally:
        for index, own in before.items():
            if own is None:
                vars(layers[index]).pop("forward", None)
            else:
                layers[index].forward = own


def _pass_on(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden


def run_model(model: PreTrainedModel, batch: Batch) -> None:
    """One teacher-forced forward of `batch`, without the output head's logits."""
    device = next(model.parameters()).device
    mask = batch.real.long().to(device)
    call_model(
        model,
        input_ids=batch.ids.to(device),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=1,
    )


class Replay:
    """Layer-by-layer teacher forcing of `batches`; `hidden` is what enters layer `layer`."""

    def __init__(self, model: PreTrainedModel, batches: list[Batch]) -> None:
        self.model, self.batches = model, batches
        self.layers = decoder_layers(model)[1]
        self.layer = 0
        self.hidden: list[Tensor] = []
        self._outputs: list[Tensor] = []

    @torch.inference_mode()
    def _run_layer(self, index: int, batch: Batch, hidden: Tensor | None) -> Tensor:
        """The output of layer `index` on `batch`; `hidden` None means the embeddings' output."""
        own_forward = self.layers[index].forward
        result: list[Tensor] = []

        def layer(incoming: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            entering = incoming if hidden is None else hidden.to(incoming.device)
            output = own_forward(entering, *args, **kwargs)
            result.append(output[0] if isinstance(output, tuple) else output)
            raise _Reached

        replacements = dict.fromkeys(range(index), _pass_on) | {index: layer}
        with _forwards(self.layers, replacements), suppress(_Reached):
            run_model(self.model, batch)
        return result[0].cpu()

    def _run_all(self, collector: HessianCollector | None, progress: Any = None) -> list[Tensor]:
        """The current layer's outputs on every batch."""
        outputs = []
        for number, batch in enumerate(self.batches):
            if collector is not None:
                observe_batch(collector, batch)
            hidden = self.hidden[number] if self.hidden else None
            outputs.append(self._run_layer(self.layer, batch, hidden))
            if progress is not None:
                progress(int(batch.real.sum()))
        return outputs

    def collect(self, groups: list[Group], progress: Any = None) -> HessianCollector:
        """The Hessians of the current layer's `groups`, with the layer's present weights."""
        collector = HessianCollector(self.model, groups)
        with collector.attached():
            self._outputs = self._run_all(collector, progress)
        collector.finish()
        return collector

    def advance(self, rerun: bool) -> None:
        """Go on to the next layer; `rerun` the current one first if its weights have changed."""
        self.hidden = self._run_all(None) if rerun or not self._outputs else self._outputs
        self._outputs = []
        self.layer += 1


def observe_batch(collector: HessianCollector, batch: Batch) -> None:
    """Announce a teacher-forced batch, counting prompt and decode tokens apart."""
    prompt = int((batch.real & batch.prompt).sum())
    decode = int(batch.real.sum()) - prompt
    collector.forward(batch.real.to(collector.device), prompt=prompt, decode=decode)


@torch.inference_mode()
def collect_in_one_pass(
    collector: HessianCollector, batches: list[Batch], progress: Any = None
) -> None:
    """The Hessians of all groups at once, one full forward a batch."""
    with collector.attached():
        for batch in batches:
            observe_batch(collector, batch)
            run_model(collector.model, batch)
            if progress is not None:
                progress(int(batch.real.sum()))
    collector.finish()
