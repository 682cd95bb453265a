"""Batched KV-cached decoding with a transformers model, slots refilled as sequences finish.

All rows share one timeline of cache columns. A row's tokens are the columns from its `start` on, so
a 2D attention mask and position ids are all a model needs to know, whatever its architecture. A new
prompt is prefilled alone and written right-aligned into a free row; columns that no active row uses
are dropped on the left.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rac.engines.base import Sampling, Trace
from rac.engines.cache import GrowingCache
from rac.engines.inputs import context_length, left_pad, model_inputs, stop_token_ids
from rac.engines.sampling import sample
from rac.errors import UserError


class Observer(Protocol):
    """Told before each forward which rows of the batch are real tokens."""

    def observe(self, real: Tensor, phase: str) -> None:
        """`real` is bool [B, T]; `phase` is "prompt" or "decode"."""


class Generation:
    """Decoding in progress: `step` advances it, `state_dict` freezes it to the bit.

    Without a `token_budget` each prompt is taken once. With one, the prompts are taken round and
    round until exactly that many tokens have gone into the model. A prompt is then only admitted
    when the budget is expected to last for its whole trace (as long as allowed until a trace has
    finished, then all tokens decoded per finished trace), so that few traces are cut at the end.

    Raises:
        UserError: a prompt is empty, or leaves no room in the model's context.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        *,
        batch_size: int = 64,
        observer: Observer | None = None,
        token_budget: int | None = None,
    ) -> None:
        self.model, self.prompts, self.sampling = model, prompts, sampling
        self.batch_size, self.observer = batch_size, observer
        self.remaining = token_budget
        self.device = next(model.parameters()).device
        self.stop_ids, self.context = stop_token_ids(model), context_length(model)
        for index, prompt in enumerate(prompts):
            if not 0 < len(prompt) < self.context:
                raise UserError(
                    f"prompt {index} has {len(prompt)} tokens, and the model can take 1 to "
                    f"{self.context - 1} and answer; leave it out"
                )
        self.generator = torch.Generator(self.device).manual_seed(sampling.seed)
        self.rows: list[Trace | None] = []
        self.starts: list[int] = []
        self.cache = GrowingCache()
        self.next_prompt = 0
        self.finished = {"traces": 0, "tokens": 0}

    @property
    def exhausted(self) -> bool:
        """No prompt is left to admit."""
        if self.remaining is not None:
            return self.remaining <= 0
        return self.next_prompt >= len(self.prompts)

    @property
    def done(self) -> bool:
        """Nothing is left to do."""
        return self.exhausted and not any(self.rows)

    @torch.inference_mode()
    def step(self) -> list[Trace]:
        """Admit prompts into free rows, then decode one token a row; returns finished traces."""
        finished = self._admit()
        if any(self.rows):
            finished += self._decode()
        return finished

    def _admit(self) -> list[Trace]:
        """Prefill as many new prompts as there are free rows."""
        free = [i for i, row in enumerate(self.rows) if row is None]
        free += range(len(self.rows), self.batch_size)
        traces = self._take_prompts(min(len(free), self._affordable()))
        if not traces:
            return []
        ids, mask = left_pad([t.prompt_ids for t in traces], self.device)
        cache = GrowingCache()
        logits = self._forward(ids, mask, cache, mask.bool(), "prompt")
        self._place(traces, free[: len(traces)], cache, ids.shape[1])
        if self.remaining is not None and self.remaining <= 0:
            return self._retire([i for i, row in enumerate(self.rows) if row], "budget")
        return self._append(free[: len(traces)], sample(logits, self.sampling, self.generator))

    def _affordable(self) -> int:
        """How many more traces the budget is expected to pay for to their end."""
        if self.remaining is None or not self.prompts:
            return self.batch_size
        prompt = len(self.prompts[self.next_prompt % len(self.prompts)])
        output = min(self.sampling.max_new_tokens, self.context - prompt)
        active = [row for row in self.rows if row]
        if self.finished["traces"]:
            written = self.finished["tokens"] + sum(len(row.output_ids) for row in active)
            output = min(output, written // self.finished["traces"])
        reserved = sum(max(1, output - len(row.output_ids)) for row in active)
        return max(0 if active else 1, (self.remaining - reserved) // (prompt + output))

    def _take_prompts(self, count: int) -> list[Trace]:
        traces: list[Trace] = []
        while len(traces) < count and not self.exhausted:
            prompt = self.prompts[self.next_prompt % len(self.prompts)]
            if self.remaining is not None:
                prompt = prompt[: self.remaining]
                self.remaining -= len(prompt)
            traces.append(Trace(self.next_prompt, list(prompt)))
            self.next_prompt += 1
        return traces

    def _place(self, traces: list[Trace], rows: list[int], cache: GrowingCache, width: int) -> None:
        """Put a prefilled `cache` into `rows` of the running one."""
        if not self.rows:
            self.cache, self.rows = cache, list(traces)
            self.starts = [width - len(t.prompt_ids) for t in traces]
            return
        new_rows = max(0, rows[-1] + 1 - len(self.rows))
        if new_rows:
            self._keep_rows([*range(len(self.rows)), *[0] * new_rows])
        missing = max(0, width - self.cache.get_seq_length())
        index = torch.tensor(rows, device=self.device)
        for layer, new in zip(self.cache.layers, cache.layers, strict=True):
            if missing:
                layer.pad_left(missing)
            layer.write_rows(index, new)
        self.starts = [start + missing for start in self.starts]
        columns = self.cache.get_seq_length()
        for row, trace in zip(rows, traces, strict=True):
            self.rows[row], self.starts[row] = trace, columns - len(trace.prompt_ids)

    def _decode(self) -> list[Trace]:
        """Feed every row its last token and sample the next."""
        self._shrink()
        active = [i for i, row in enumerate(self.rows) if row is not None]
        counted = active
        if self.remaining is not None:
            counted = active[: self.remaining]
            self.remaining -= len(counted)
        tokens = [row.output_ids[-1] if row else 0 for row in self.rows]
        ids = torch.tensor(tokens, device=self.device)[:, None]
        real = torch.zeros(len(self.rows), 1, dtype=torch.bool)
        real[counted] = True
        columns = torch.arange(self.cache.get_seq_length() + 1, device=self.device)
        mask = (columns >= torch.tensor(self.starts, device=self.device)[:, None]).long()
        logits = self._forward(ids, mask, self.cache, real.to(self.device), "decode")
        sampled = sample(logits, self.sampling, self.generator)
        finished = self._append(counted, sampled[counted])
        if self.remaining is not None and self.remaining <= 0:
            finished += self._retire([i for i in active if self.rows[i]], "budget")
        return finished

    def _shrink(self) -> None:
        """Drop unused columns, and unused rows when there is no prompt for many of them."""
        active = [i for i, row in enumerate(self.rows) if row is not None]
        unused = min(self.starts[i] for i in active)
        if unused >= 64:
            for layer in self.cache.layers:
                layer.drop_left(unused)
            self.starts = [max(0, start - unused) for start in self.starts]
        if len(active) <= 0.75 * len(self.rows):
            self._keep_rows(active)

    def _keep_rows(self, rows: list[int]) -> None:
        """Make the batch of its present `rows`; one named again is room for a new prompt."""
        index = torch.tensor(rows, device=self.device)
        for layer in self.cache.layers:
            layer.keep_rows(index)
        self.starts = [self.starts[i] for i in rows]
        self.rows = [self.rows[i] for i in rows]

    def _forward(
        self, ids: Tensor, mask: Tensor, cache: GrowingCache, real: Tensor, phase: str
    ) -> Tensor:
        """Logits [B, V] after the last column of `ids` [B, T]; `mask` covers the whole cache."""
        if self.observer is not None:
            self.observer.observe(real, phase)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        inputs = model_inputs(
            self.model,
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return self.model(**inputs).logits[:, -1].float()

    def _append(self, rows: list[int], tokens: Tensor) -> list[Trace]:
        """Give each row its sampled token and retire the rows that it ends."""
        stopped, full = [], []
        for row, token in zip(rows, tokens.tolist(), strict=True):
            trace = self.rows[row]
            assert trace is not None
            trace.output_ids.append(token)
            length = len(trace.prompt_ids) + len(trace.output_ids)
            if token in self.stop_ids:
                stopped.append(row)
            elif len(trace.output_ids) >= self.sampling.max_new_tokens or length >= self.context:
                full.append(row)
        return self._retire(stopped, "stop") + self._retire(full, "length")

    def _retire(self, rows: list[int], reason: str) -> list[Trace]:
        finished = []
        for row in rows:
            trace = self.rows[row]
            assert trace is not None
            trace.finish_reason = reason
            if reason != "budget":
                self.finished["traces"] += 1
                self.finished["tokens"] += len(trace.output_ids)
            finished.append(trace)
            self.rows[row] = None
        return finished

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, for `torch.save`."""
        return {
            "rows": [row and [row.index, row.prompt_ids, row.output_ids] for row in self.rows],
            "starts": self.starts,
            "cache": self.cache.state_dict(),
            "generator": self.generator.get_state(),
            "next_prompt": self.next_prompt,
            "remaining": self.remaining,
            "finished": dict(self.finished),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`'s result as if there had been no interruption."""
        self.rows = [row and Trace(*row) for row in state["rows"]]
        self.starts, self.next_prompt = state["starts"], state["next_prompt"]
        self.remaining, self.finished = state["remaining"], dict(state["finished"])
        self.cache.load_state_dict(state["cache"])
        self.generator.set_state(state["generator"].cpu())


def generate(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    *,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Trace]:
    """Decode every prompt once; traces come as they finish. `progress` is given decoded tokens."""
    generation = Generation(model, prompts, sampling, batch_size=batch_size)
    while not generation.done:
        finished = generation.step()
        yield from finished
        if progress is not None:
            progress(sum(row is not None for row in generation.rows) + len(finished))
