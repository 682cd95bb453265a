"""What a task is: questions, and how their responses are drawn and judged."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Question:
    """One problem: a prompt (text, or chat messages) and the answer it is graded against.

    `reference` is what a grader needs beside the answer, as JSON holds it: test cases, aliases,
    choices.
    """

    prompt: str | Messages
    answer: str
    reference: Any = None


@dataclass(frozen=True)
class Settings:
    """The published settings of a task; what a user leaves open is taken from here."""

    max_new_tokens: int = 32768
    temperature: float = 0.6
    top_p: float = 0.95
    samples: int = 1


@dataclass(frozen=True)
class Task:
    """Questions, the name of the grader that judges their responses, and the settings."""

    name: str
    questions: tuple[Question, ...]
    grader: str = "exact"
    settings: Settings = Settings()

    @property
    def digest(self) -> str:
        """A fingerprint of questions and grader: equal digests, comparable accuracies."""
        rows = [
            [q.prompt, q.answer] if q.reference is None else [q.prompt, q.answer, q.reference]
            for q in self.questions
        ]
        content = json.dumps([self.grader, rows], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]
