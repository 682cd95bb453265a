"""What every grader gives."""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rac.evaluation.tasks.base import Question


@dataclass(frozen=True)
class Grade:
    """The verdict on one final text.

    `predicted` is the answer as it was read; `scores` are measures beside `correct`, such as
    {"em": 1.0, "f1": 0.8}; `note` says what went wrong in the grader's terms ("timeout").
    """

    correct: bool
    predicted: str | None
    scores: dict[str, float] = field(default_factory=dict)
    note: str = ""


class Grader(Protocol):
    """A context manager that judges what a model wrote after its thoughts."""

    def grade(self, final: str, question: Question) -> Grade:
        """Judge `final`, the text after `</think>`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
