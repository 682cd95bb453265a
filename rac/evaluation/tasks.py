"""What is asked: the embedded problems, or the user's own JSONL file."""

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rac.assets.problems import generate_problems
from rac.errors import UserError
from rac.evaluation.grading import GRADERS

EMBEDDED_QUESTIONS = 200
EMBEDDED_SEED = 0

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Question:
    """One problem: a prompt (text, or chat messages) and the answer it is graded against."""

    prompt: str | Messages
    answer: str


@dataclass(frozen=True)
class Task:
    """Questions and the name of the grader that judges their responses."""

    name: str
    questions: tuple[Question, ...]
    grader: str = "exact"

    @property
    def digest(self) -> str:
        """A fingerprint of questions and grader: equal digests, comparable accuracies."""
        content = [self.grader, [[q.prompt, q.answer] for q in self.questions]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_task(
    name: str, path: Path | None = None, *, grader: str = "exact", limit: int | None = None
) -> Task:
    """Load the task `name`: "embedded", or "jsonl" with its file in `path`.

    `limit` keeps the first questions (embedded: how many to make, 200 when None).

    Raises:
        UserError: unknown task or grader, a limit below 1, or a line of the file that has no
            usable prompt or answer.
    """
    if limit is not None and limit < 1:
        raise UserError(f"the number of problems must be at least 1, got {limit}")
    if grader not in GRADERS:
        raise UserError(f"grader {grader!r} is not one of {', '.join(GRADERS)}")
    if name == "embedded":
        problems = generate_problems("heldout", EMBEDDED_SEED)
        taken = itertools.islice(problems, EMBEDDED_QUESTIONS if limit is None else limit)
        return Task(name, tuple(Question(p.prompt, p.answer) for p in taken))
    if name == "jsonl":
        if path is None:
            raise UserError("task jsonl needs a file of problems; name it")
        return Task(name, tuple(read_questions(path)[:limit]), grader)
    raise UserError(f"task {name!r} is not one of embedded, jsonl")


def read_questions(path: Path) -> list[Question]:
    """Read every line of a JSONL file of `prompt` or `messages`, and `answer`.

    Raises:
        UserError: the file cannot be read or is empty, or a line is not usable; names the line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    questions = [
        _question(line, f"{path} line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not questions:
        raise UserError(f"{path} has no problems; give a line of JSON with prompt and answer each")
    return questions


def _question(line: bytes, where: str) -> Question:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(row).__name__}")
    if "prompt" not in row and "messages" not in row:
        raise UserError(f"{where}: the key 'prompt' (or 'messages') is missing")
    if "answer" not in row:
        raise UserError(f"{where}: the key 'answer' is missing")
    prompt = _text(row["prompt"], "prompt", where) if "prompt" in row else None
    answer = row["answer"]
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    return Question(prompt or _messages(row["messages"], where), _text(answer, "answer", where))


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: '{key}' must be text that is not empty, got {value!r}")
    return value


def _messages(value: Any, where: str) -> Messages:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: 'messages' must be a list that is not empty")
    for message in value:
        keys = message.keys() if isinstance(message, dict) else ()
        if not {"role", "content"} <= set(keys):
            raise UserError(f"{where}: each of 'messages' needs the keys 'role' and 'content'")
        _text(message["role"], "role", where)
        _text(message["content"], "content", where)
    return [{"role": m["role"], "content": m["content"]} for m in value]
