"""Under which conditions responses are drawn, and what is counted of them."""

from dataclasses import dataclass, replace

from rac.engines import Sampling
from rac.errors import UserError
from rac.evaluation.tasks import Task


@dataclass(frozen=True)
class Conditions:
    """What a user may leave open; `settled` takes it from the task's published settings.

    `samples` responses are drawn for each question. `budgets`: numbers of tokens at which the same
    responses are judged again, as if generation had stopped there. `pass_at`: the k of pass@k, by
    default the powers of two up to `samples`, and `samples`.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    samples: int | None = None
    seed: int = 0
    budgets: tuple[int, ...] = ()
    pass_at: tuple[int, ...] = ()

    def settled(self, task: Task) -> "Conditions":
        """The same with nothing open, budgets from the largest, each once.

        Raises:
            UserError: a value that cannot be.
        """
        published = task.settings
        filled = replace(
            self,
            max_new_tokens=_first(self.max_new_tokens, published.max_new_tokens),
            temperature=_first(self.temperature, published.temperature),
            top_p=_first(self.top_p, published.top_p),
            samples=_first(self.samples, published.samples),
            budgets=tuple(sorted(set(self.budgets), reverse=True)),
        )
        filled = replace(
            filled, pass_at=tuple(sorted(set(self.pass_at or _powers(filled.samples))))
        )
        filled._check()
        return filled

    def _check(self) -> None:
        assert self.max_new_tokens is not None and self.samples is not None
        if self.max_new_tokens < 1:
            raise UserError(f"--max-new-tokens must be at least 1, got {self.max_new_tokens}")
        if self.samples < 1:
            raise UserError(f"--samples must be at least 1, got {self.samples}")
        if self.temperature == 0 and self.samples > 1:
            raise UserError(
                f"--samples {self.samples} at temperature 0 would be the same response "
                f"{self.samples} times; sample with --temperature, or ask once"
            )
        for budget in self.budgets:
            if not 1 <= budget <= self.max_new_tokens:
                raise UserError(
                    f"--budgets {budget} is not in 1..{self.max_new_tokens}, the most tokens that "
                    "a response gets (--max-new-tokens)"
                )
        for k in self.pass_at:
            if not 1 <= k <= self.samples:
                raise UserError(
                    f"--pass-at {k} needs 1 to {self.samples} of the responses drawn; "
                    "raise --samples"
                )

    @property
    def sampling(self) -> Sampling:
        """What the engine is told; only of settled conditions."""
        assert None not in (self.max_new_tokens, self.temperature, self.top_p)
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, self.seed)


def request_seed(seed: int, number: int) -> int:
    """The seed of the `number`-th response: its own, and the run's for the first; below 2^31."""
    return (seed + 1_000_003 * number) % 2**31


def _first(given, published):
    return published if given is None else given


def _powers(samples: int | None) -> list[int]:
    count = max(1, samples or 1)
    return [*(2**i for i in range(count.bit_length()) if 2**i <= count), count]
