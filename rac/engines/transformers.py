"""Batched KV-cached decoding with a transformers model, slots refilled as sequences finish.

A new prompt is prefilled alone and written right-aligned into a free row of the cache; columns
that no active row uses are dropped on the left.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from rac.engines.base import Sampling, Trace
from rac.engines.cache import SlotCache
from rac.engines.inputs import context_length, left_pad, prefill, stop_token_ids
from rac.engines.sampling import draws, sample, stream_key, to_uniform
from rac.engines.schedule import Schedule
from rac.engines.step import DecodeStep, Observer


class Generation:
    """Decoding in progress: `step` advances it, `state_dict` freezes it to the bit.

    Args:
        model: in eval mode, on its device.
        prompts: token ids; see `Schedule` for how they are admitted.
        sampling: how tokens are drawn.
        seeds: of each prompt's own draws; None: from the one seed of `sampling`. What a prompt
            draws is the same in any batch.
        batch_size: the most rows decoded at once.
        observer: sees every token that goes into the model.
        token_budget: stop after so many tokens, taking the prompts round and round.
        static: keep the cache where it is, so that steps can be recorded as CUDA graphs; None
            means on a GPU, for the models that transformers knows to work with a fixed cache.

    Raises:
        UserError: a prompt is empty, or leaves no room in the model's context.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int] | None = None,
        batch_size: int = 64,
        observer: Observer | None = None,
        token_budget: int | None = None,
        static: bool | None = None,
    ) -> None:
        self.model, self.observer = model, observer
        self.device = next(model.parameters()).device
        fixed = self.device.type == "cuda" and getattr(model, "_can_compile_fullgraph", False)
        self.static = fixed if static is None else static
        self.schedule = Schedule(
            prompts,
            sampling,
            stop_ids=stop_token_ids(model),
            context=context_length(model),
            batch_size=batch_size,
            token_budget=token_budget,
        )
        self.sampling, self.seeds = sampling, seeds
        self.decode_step = DecodeStep(model, sampling, self.device, observer)
        self.cache: SlotCache | None = None
        self.starts: list[int] = []  # first column of each row, from the cache's first one in use
        self.keys: list[int] = []  # of each row's draws

    @property
    def remaining(self) -> int | None:
        """Tokens left of the budget."""
        return self.schedule.remaining

    @property
    def done(self) -> bool:
        """Nothing is left to do."""
        return self.schedule.exhausted and not self.schedule.active

    @torch.inference_mode()
    def step(self) -> list[Trace]:
        """Admit prompts into free rows, then decode one token a row; returns finished traces."""
        finished = self._admit()
        if self.schedule.active:
            finished += self._decode()
        return finished

    def _admit(self) -> list[Trace]:
        """Prefill as many new prompts as there are free rows."""
        traces, rows = self.schedule.admit()
        if not traces:
            return []
        ids, mask = left_pad([t.prompt_ids for t in traces], self.device)
        if self.observer is not None:
            self.observer.prefill(mask.bool(), sum(len(t.prompt_ids) for t in traces))
        logits, prefilled = prefill(self.model, ids, mask)
        self._place(traces, rows, prefilled, ids.shape[1])
        if self.schedule.spent:
            return self.schedule.retire(self.schedule.active, "budget")
        drawn = torch.tensor(self._draw(rows), device=self.device)
        sampled = sample(logits, self.sampling, to_uniform(drawn))
        return self.schedule.append(rows, sampled.tolist())

    def _key(self, trace: Trace | None) -> int:
        """Of a trace's draws."""
        if trace is None:
            return 0
        if self.seeds is None:
            return stream_key(self.sampling.seed, trace.index)
        return stream_key(self.seeds[trace.index])

    def _draw(self, rows: Sequence[int]) -> list[int]:
        """The random numbers for the next token of `rows`."""
        if self.sampling.temperature == 0:
            return [0] * len(rows)
        traces = [self.schedule.rows[row] for row in rows]
        positions = [len(trace.output_ids) if trace else 0 for trace in traces]
        return draws([self.keys[row] for row in rows], positions)

    def _place(
        self, traces: list[Trace], rows: list[int], prefilled: DynamicCache, width: int
    ) -> None:
        """Put a prefilled cache into `rows` of the running one."""
        schedule = self.schedule
        if self.cache is None:
            self.cache = SlotCache(prefilled, schedule.longest, self.static)
            schedule.rows = list(traces)
            self.starts = [width - len(t.prompt_ids) for t in traces]
            self.keys = [self._key(trace) for trace in traces]
            return
        new_rows = max(0, rows[-1] + 1 - len(schedule.rows))
        if new_rows:
            self._keep_rows([*range(len(schedule.rows)), *[0] * new_rows])
        missing = self.cache.place(prefilled, torch.tensor(rows, device=self.device))
        self.starts = [start + missing for start in self.starts]
        for row, trace in zip(rows, traces, strict=True):
            schedule.rows[row] = trace
            self.starts[row] = self.cache.used - len(trace.prompt_ids)
            self.keys[row] = self._key(trace)

    def _decode(self) -> list[Trace]:
        """Feed every row its last token and sample the next."""
        assert self.cache is not None
        self._shrink()
        schedule = self.schedule
        counted = schedule.spend()
        ids = [row.output_ids[-1] if row else 0 for row in schedule.rows]
        # A free row sees its own column alone: its position must not run out of the context.
        rows = zip(schedule.rows, self.starts, strict=True)
        starts = [start if row else self.cache.used for row, start in rows]
        drawn = self._draw(range(len(schedule.rows)))
        sampled = self.decode_step(self.cache, ids, starts, counted, drawn)
        finished = schedule.append(counted, [sampled[row] for row in counted])
        if schedule.spent:
            finished += schedule.retire(schedule.active, "budget")
        return finished

    def _shrink(self) -> None:
        """Drop unused columns, and unused rows when there is no prompt for many of them."""
        assert self.cache is not None
        active = self.schedule.active
        unused = min(self.starts[i] for i in active)
        if unused >= 64:
            self.cache.drop_left(unused)
            self.starts = [max(0, start - unused) for start in self.starts]
        if len(active) <= 0.75 * len(self.schedule.rows):
            self._keep_rows(active)

    def _keep_rows(self, rows: list[int]) -> None:
        """Make the batch of its present `rows`; one named again is room for a new prompt."""
        assert self.cache is not None
        self.cache.keep_rows(torch.tensor(rows, device=self.device))
        self.starts = [self.starts[i] for i in rows]
        self.keys = [self.keys[i] for i in rows]
        self.schedule.rows = [self.schedule.rows[i] for i in rows]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, for `torch.save`."""
        return {
            "schedule": self.schedule.state_dict(),
            "starts": self.starts,
            "cache": self.cache and self.cache.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`'s result as if there had been no interruption."""
        self.schedule.load_state_dict(state["schedule"])
        self.starts = state["starts"]
        self.cache = state["cache"] and SlotCache.from_state(state["cache"], self.device)
        self.keys = [self._key(row) for row in self.schedule.rows]


def generate(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    *,
    seeds: Sequence[int] | None = None,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Trace]:
    """Decode every prompt once; traces come as they finish. `progress` is given decoded tokens."""
    generation = Generation(model, prompts, sampling, seeds=seeds, batch_size=batch_size)
    while not generation.done:
        finished = generation.step()
        yield from finished
        if progress is not None:
            progress(len(generation.schedule.active) + len(finished))
