"""Which prompt goes into which slot, and when a trace ends: no tensors, no model."""

from collections.abc import Sequence
from typing import Any

from rac.engines.base import Sampling, Trace
from rac.errors import UserError


class Schedule:
    """The traces in work, one a row (None: the row is free), and the prompts still to come.

    Without a `token_budget` each prompt is taken once. With one, the prompts are taken round and
    round until exactly that many tokens have gone into the model. A prompt is then only admitted
    when the budget is expected to last for its whole trace (as long as allowed until a trace has
    finished, then all tokens decoded per finished trace), so that few traces are cut at the end.

    Raises:
        UserError: a prompt is empty, or leaves no room in the model's context.
    """

    def __init__(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        *,
        stop_ids: set[int],
        context: int,
        batch_size: int,
        token_budget: int | None,
    ) -> None:
        self.prompts, self.sampling = prompts, sampling
        self.stop_ids, self.context, self.batch_size = stop_ids, context, batch_size
        self.remaining = self.budget = token_budget
        for index, prompt in enumerate(prompts):
            if not 0 < len(prompt) < context:
                raise UserError(
                    f"prompt {index} has {len(prompt)} tokens, and the model can take 1 to "
                    f"{context - 1} and answer; leave it out"
                )
        self.rows: list[Trace | None] = []
        self.next_prompt = 0
        self.finished = {"traces": 0, "tokens": 0}

    @property
    def longest(self) -> int:
        """The most tokens that a prompt and its trace may have, by context, limit and budget."""
        prompt = max(map(len, self.prompts), default=0)
        longest = min(self.context, prompt + self.sampling.max_new_tokens)
        return longest if self.budget is None else min(longest, self.budget)

    @property
    def active(self) -> list[int]:
        """The rows with a trace."""
        return [i for i, row in enumerate(self.rows) if row is not None]

    @property
    def spent(self) -> bool:
        """There is a budget, and it is used up."""
        return self.remaining is not None and self.remaining <= 0

    @property
    def exhausted(self) -> bool:
        """No prompt is left to admit."""
        return self.spent if self.remaining is not None else self.next_prompt >= len(self.prompts)

    def admit(self) -> tuple[list[Trace], list[int]]:
        """Take as many prompts as there are free rows and the budget affords; their new rows."""
        free = [i for i, row in enumerate(self.rows) if row is None]
        free += range(len(self.rows), self.batch_size)
        traces: list[Trace] = []
        for _ in range(min(len(free), self._affordable())):
            if self.exhausted:
                break
            prompt = self.prompts[self.next_prompt % len(self.prompts)]
            if self.remaining is not None:
                prompt = prompt[: self.remaining]
                self.remaining -= len(prompt)
            traces.append(Trace(self.next_prompt, list(prompt)))
            self.next_prompt += 1
        return traces, free[: len(traces)]

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

    def spend(self) -> list[int]:
        """The active rows whose next token the budget still pays for; pays for them."""
        counted = self.active
        if self.remaining is not None:
            counted = counted[: self.remaining]
            self.remaining -= len(counted)
        return counted

    def append(self, rows: list[int], tokens: list[int]) -> list[Trace]:
        """Give each row its sampled token; returns the traces that end with it.

        Raises:
            UserError: a token is -1: the logits that it was sampled from were not finite.
        """
        stopped, full = [], []
        for row, token in zip(rows, tokens, strict=True):
            if token < 0:
                raise UserError(
                    "the model's logits hold NaN or Inf; run it in a wider dtype (--dtype float32)"
                )
            trace = self.rows[row]
            assert trace is not None
            trace.output_ids.append(token)
            length = len(trace.prompt_ids) + len(trace.output_ids)
            if token in self.stop_ids:
                stopped.append(row)
            elif len(trace.output_ids) >= self.sampling.max_new_tokens or length >= self.context:
                full.append(row)
        return self.retire(stopped, "stop") + self.retire(full, "length")

    def retire(self, rows: list[int], reason: str) -> list[Trace]:
        """Free `rows`; returns their traces."""
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
        """Plain values alone."""
        return {
            "rows": [row and [row.index, row.prompt_ids, row.output_ids] for row in self.rows],
            "next_prompt": self.next_prompt,
            "remaining": self.remaining,
            "finished": dict(self.finished),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.rows = [row and Trace(*row) for row in state["rows"]]
        self.next_prompt, self.remaining = state["next_prompt"], state["remaining"]
        self.finished = dict(state["finished"])
