"""What every engine takes and gives."""

from dataclasses import dataclass, field


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
