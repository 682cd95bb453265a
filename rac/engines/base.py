"""What every engine takes and gives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: `temperature` 0 is greedy; otherwise nucleus sampling with `top_p`."""

    max_new_tokens: int
    temperature: float = 0.6
    top_p: float = 0.95
    seed: int = 0


@dataclass
class Trace:
    """One prompt and what the model decoded after it, as the exact token ids.

    `index` is the prompt's position in the list given to the engine. `finish_reason` is "stop"
    (end of sequence), "length" (token or context limit), "budget" (calibration budget spent) or
    "prompt" (nothing was to be decoded).
    """

    index: int
    prompt_ids: list[int]
    output_ids: list[int] = field(default_factory=list)
    finish_reason: str = "prompt"

    @property
    def fed_ids(self) -> list[int]:
        """The ids that went *into* the model: all but the last sampled one."""
        return self.prompt_ids + self.output_ids[:-1]


@dataclass(frozen=True)
class Request:
    """One response to be drawn; `index` is the caller's, and comes back with the completion."""

    index: int
    prompt: str | Messages
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """One finished response.

    `text` has every `</think>` that the model wrote. `finish_reason` is "stop" (it ended by
    itself), "length" (token or context limit) or "error" (the engine gave it up). `cuts` maps a
    budget of tokens that the response is longer than to how many characters of `text` those tokens
    make; -1 where the engine does not know, because it never saw the token ids.
    """

    index: int
    text: str
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    cuts: dict[int, int] = field(default_factory=dict)
    note: str = ""


class Engine(Protocol):
    """Answers prompts.

    `name` is that of `--engine`. `thinks`: whether a response without `</think>` is unfinished;
    None when the engine cannot know, and then only one that hit the limit is. `batch_size` is how
    many responses are in work at once, None when the engine decides; `device` is where.
    """

    name: str
    thinks: bool | None
    batch_size: int | None
    device: str

    def describe(self) -> dict[str, Any]:
        """What is evaluated: pattern, calibration, solver, model, source_model, sparsity."""
        ...

    def settings(self, prompts: Sequence[str | Messages]) -> dict[str, Any]:
        """What must be equal for an evaluation of `prompts` to continue: model, dtype, rendering.

        Raises:
            UserError: a prompt cannot be rendered, or leaves no room in the model's context.
        """
        ...

    def complete(
        self, requests: Sequence[Request], sampling: Sampling, budgets: Sequence[int] = ()
    ) -> Iterator[Completion]:
        """Answer every request once, in any order; a request's own seed counts where possible.

        Raises:
            UserError: it cannot go on; what was finished before has been given.
        """
        ...
