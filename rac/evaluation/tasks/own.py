"""The embedded problems, and the user's own JSONL file."""

import itertools
import json
from pathlib import Path
from typing import Any

from rac.assets.problems import generate_problems
from rac.errors import UserError
from rac.evaluation.tasks.base import Messages, Question

EMBEDDED_QUESTIONS = 200
EMBEDDED_SEED = 0


def embedded_questions(count: int | None = None) -> list[Question]:
    """Make `count` held-out problems of the embedded reasoner, 200 when None."""
    problems = generate_problems("heldout", EMBEDDED_SEED)
    taken = itertools.islice(problems, EMBEDDED_QUESTIONS if count is None else count)
    return [Question(p.prompt, p.answer) for p in taken]


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
