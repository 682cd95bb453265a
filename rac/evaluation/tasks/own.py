"""The embedded problems, and the user's own file."""

import itertools
from pathlib import Path
from typing import Any

from rac.assets.problems import generate_problems
from rac.errors import UserError
from rac.evaluation.tasks.base import Messages, Question
from rac.rows import Row, read_file

EMBEDDED_QUESTIONS = 200
EMBEDDED_SEED = 0


def embedded_questions(count: int | None = None) -> list[Question]:
    """Make `count` held-out problems of the embedded reasoner, 200 when None."""
    problems = generate_problems("heldout", EMBEDDED_SEED)
    taken = itertools.islice(problems, EMBEDDED_QUESTIONS if count is None else count)
    return [Question(p.prompt, p.answer) for p in taken]


def read_questions(path: Path) -> list[Question]:
    """Read every row of a file: `prompt` or `messages`, `answer`, and `reference` where needed.

    `reference` is what the grader uses beside the answer: f1, further answers; choice, the labels.

    Raises:
        UserError: the file cannot be read or is empty, or a row is not usable; names the row.
    """
    questions = [_question(row) for row in read_file(path)]
    if not questions:
        raise UserError(f"{path} has no problems; give a line of JSON with prompt and answer each")
    return questions


def _question(row: Row) -> Question:
    messages = None if "prompt" in row.values else row.values.get("messages")
    prompt = row.text("prompt", "messages") if messages is None else _messages(messages, row.where)
    return Question(prompt, row.text_or_number("answer"), row.values.get("reference"))


def _messages(value: Any, where: str) -> Messages:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: 'messages' must be a list that is not empty")
    for message in value:
        keys = message.keys() if isinstance(message, dict) else ()
        if not {"role", "content"} <= set(keys):
            raise UserError(f"{where}: each of 'messages' needs the keys 'role' and 'content'")
        Row(message, where).text("role")
        Row(message, where).text("content")
    return [{"role": m["role"], "content": m["content"]} for m in value]
