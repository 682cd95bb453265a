"""Tasks by name."""

from pathlib import Path

from rac.errors import UserError
from rac.evaluation.tasks.base import Messages, Question, Settings, Task
from rac.evaluation.tasks.own import embedded_questions, read_questions

__all__ = ["Messages", "Question", "Settings", "Task", "load_task"]


def load_task(
    name: str, path: Path | None = None, *, grader: str = "exact", limit: int | None = None
) -> Task:
    """Load the task `name`: "embedded", or "jsonl" with its file in `path`.

    `limit` keeps the first questions (embedded: how many to make, 200 when None).

    Raises:
        UserError: unknown task or grader, a limit below 1, or a line of the file that has no
            usable prompt or answer.
    """
    from rac.evaluation.graders import GRADERS

    if limit is not None and limit < 1:
        raise UserError(f"the number of problems must be at least 1, got {limit}")
    if grader not in GRADERS:
        raise UserError(f"grader {grader!r} is not one of {', '.join(GRADERS)}")
    if name == "embedded":
        return Task(name, tuple(embedded_questions(limit)))
    if name == "jsonl":
        if path is None:
            raise UserError("task jsonl needs a file of problems; name it")
        return Task(name, tuple(read_questions(path)[:limit]), grader)
    raise UserError(f"task {name!r} is not one of embedded, jsonl")
