"""One decode step on the device: last tokens in, next tokens out; a CUDA graph where there is one.

A step has no host synchronisation and no address that changes, so on a GPU it is recorded the
second time that its shapes come up and replayed from then on. The first time runs it eagerly,
which also compiles and warms up whatever it calls. Elsewhere it always runs eagerly.
"""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rac.engines.base import Sampling
from rac.engines.cache import SlotCache
from rac.engines.inputs import accepted_inputs, call_model
from rac.engines.sampling import sample, to_uniform
from rac.engines.stacked import PackedWeights
from rac.errors import first_line

log = logging.getLogger("rac")


class Observer(Protocol):
    """Told what the next forward holds, so that it can take the activations on their way."""

    def prefill(self, real: Tensor, tokens: int) -> None:
        """A forward over prompts follows: `real` bool [B, T] marks its `tokens` real tokens."""

    def open_step(self, rows: int, tokens: int) -> None:
        """A decode step of `rows` rows follows, `tokens` of them counted; runs on the host."""

    def step(self, active: Tensor) -> None:
        """`active` bool [B] marks the counted rows; called inside the step, may be recorded."""


class DecodeStep:
    """Feeds every row its last token and samples the next."""

    def __init__(
        self,
        model: PreTrainedModel,
        sampling: Sampling,
        device: torch.device,
        observer: Observer | None,
    ) -> None:
        self.model, self.sampling, self.observer = model, sampling, observer
        self.inputs = torch.zeros(0, dtype=torch.long, device=device)
        self.graphs: dict[int, tuple[Any, Tensor] | None] = {}  # by window
        self.recordable = device.type == "cuda"
        self.pool: Any = None
        self.moves = -1
        self.packed = PackedWeights(model)
        self.accepted = accepted_inputs(model)

    def __call__(
        self,
        cache: SlotCache,
        ids: list[int],
        starts: list[int],
        counted: list[int],
        drawn: list[int],
    ) -> list[int]:
        """The next id of every row.

        Args:
            cache: gets one more column.
            ids: the last token of each row; any id where a row is free.
            starts: each row's first column, counted from the cache's first column in use.
            counted: the rows that the observer is to see.
            drawn: a random number a row, see `rac.engines.sampling.draws`.
        """
        if self.observer is not None:
            self.observer.open_step(len(ids), len(counted))
        cache.open_step()
        active = [0] * len(ids)
        for row in counted:
            active[row] = 1
        offset = cache.start if cache.cursor is not None else 0
        self._load([*ids, *(start + offset for start in starts), *active, *drawn], cache)
        with self.packed.in_use():
            sampled = self._graphed(cache) if cache.cursor is not None else self._run(cache)
        cache.close_step()
        return sampled.tolist()

    def _load(self, values: list[int], cache: SlotCache) -> None:
        """Put the host's values where the step reads them."""
        if len(values) != self.inputs.numel() or cache.moves != self.moves:
            self.inputs = self.inputs.new_zeros(len(values))
            self.graphs.clear()
            self.pool = None  # a pool whose graphs are all gone cannot be used again
            self.moves = cache.moves
        self.inputs.copy_(torch.tensor(values))

    def _run(self, cache: SlotCache) -> Tensor:
        ids, starts, counted, drawn = self.inputs.view(4, -1)
        if self.observer is not None:
            self.observer.step(counted.bool())
        if cache.cursor is None:
            columns = torch.arange(cache.used + 1, device=ids.device)
            mask = columns >= starts[:, None]
            positions = cache.used - starts
        else:
            columns = torch.arange(cache.window, device=ids.device)
            mask = (columns >= starts[:, None]) & (columns <= cache.cursor)
            positions = cache.cursor - starts
        logits = call_model(
            self.model,
            self.accepted,
            input_ids=ids[:, None],
            attention_mask=mask.long(),
            position_ids=positions[:, None].clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return sample(logits, self.sampling, to_uniform(drawn))

    def _graphed(self, cache: SlotCache) -> Tensor:
        """Eager at first sight of a window, recorded at the second, replayed afterwards."""
        if not self.recordable or cache.window not in self.graphs:
            self.graphs[cache.window] = None
            return self._run(cache)
        if self.graphs[cache.window] is None:
            if self.pool is None and self.inputs.is_cuda:
                self.pool = torch.cuda.graph_pool_handle()
            self.graphs[cache.window] = record(lambda: self._run(cache), self.pool)
            if self.graphs[cache.window] is None:
                self.recordable = False
                return self._run(cache)
        graph, sampled = self.graphs[cache.window]
        graph.replay()
        return sampled


def record(function: Callable[[], Tensor], pool: Any) -> tuple[torch.cuda.CUDAGraph, Tensor] | None:
    """Record `function` as a CUDA graph; with it the tensor that it fills.

    `pool` is the memory that the graphs of one engine share: only one of them runs at a time.
    Returns None, after a warning, where the function cannot be recorded: it waits for the device.
    """
    stream = torch.cuda.current_stream()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, pool=pool):
            result = function()
    except RuntimeError as error:
        torch.cuda.set_stream(stream)  # a recording that fails leaves its own stream current
        log.warning("decoding without a CUDA graph, slower: %s", first_line(error))
        return None
    return graph, result
