"""Tasks by name."""

import json
import logging
import random
from dataclasses import replace
from pathlib import Path

from rac.errors import UserError
from rac.evaluation.tasks.base import Messages, Question, Settings, Task
from rac.evaluation.tasks.benchmark import Benchmark
from rac.evaluation.tasks.code import CODE
from rac.evaluation.tasks.mathematics import MATHEMATICS
from rac.evaluation.tasks.own import embedded_questions, read_questions
from rac.evaluation.tasks.reasoning import REASONING
from rac.evaluation.tasks.rows import benchmark_rows

__all__ = [
    "BENCHMARKS",
    "TASKS",
    "Benchmark",
    "Messages",
    "Question",
    "Settings",
    "Task",
    "load_task",
]

BENCHMARKS: dict[str, Benchmark] = {**MATHEMATICS, **REASONING, **CODE}
TASKS = ("embedded", "jsonl", *BENCHMARKS)

logger = logging.getLogger(__name__)


def load_task(
    name: str,
    path: Path | None = None,
    *,
    grader: str | None = None,
    limit: int | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> Task:
    """Load the task `name`: "embedded", "jsonl" (own data), or one of `BENCHMARKS`.

    `path` is the file of the problems, or a folder with a benchmark's file in it; a benchmark
    without one is loaded from the hub. `grader` and `samples` (responses to each question) take
    the place of the task's own. `limit` keeps the first questions; embedded: how many to make, 200
    when None; where the protocol draws questions by `seed` (musique: 100), how many to draw.

    Raises:
        UserError: unknown task or grader, a number below 1, or rows that cannot be had or used.
    """
    from rac.evaluation.graders import check_grader

    for what, number in (("problems", limit), ("samples", samples)):
        if number is not None and number < 1:
            raise UserError(f"the number of {what} must be at least 1, got {number}")
    if name not in TASKS:
        raise UserError(f"task {name!r} is not one of {', '.join(TASKS)}")
    if grader is not None:
        check_grader(grader)
    benchmark = BENCHMARKS.get(name)
    if benchmark is not None:
        task = _load_benchmark(name, benchmark, path, limit, seed)
    elif name == "embedded":
        task = Task(name, tuple(embedded_questions(limit)))
    elif path is None:
        raise UserError("task jsonl needs a file of problems; name it")
    else:
        task = Task(name, tuple(_once(read_questions(path), path)[:limit]))
    task = replace(task, grader=grader or task.grader)
    _require_gradable(task, path or name)
    if samples is not None:
        task = replace(task, settings=replace(task.settings, samples=samples))
    return task


def _load_benchmark(
    name: str, benchmark: Benchmark, path: Path | None, limit: int | None, seed: int
) -> Task:
    source = path or benchmark.hub
    rows = benchmark_rows(name, benchmark, path)
    questions = _once([benchmark.question(row) for row in rows], source)
    if not questions:
        raise UserError(f"{source} has no rows for {name}")
    if benchmark.sampled is not None:
        random.Random(seed).shuffle(questions)
        limit = benchmark.sampled if limit is None else limit
    return Task(name, tuple(questions[:limit]), benchmark.grader, benchmark.settings)


def _require_gradable(task: Task, source: Path | str) -> None:
    from rac.evaluation.graders import check_question

    for number, question in enumerate(task.questions, 1):
        try:
            check_question(task.grader, question)
        except UserError as error:
            raise UserError(f"{source}, problem {number}: {error}") from error


def _once(questions: list[Question], source: Path | str) -> list[Question]:
    """`questions` without repeats, which would count twice.

    Raises:
        UserError: one is asked again with another answer; names both.
    """
    seen: dict[str, tuple[int, Question]] = {}
    for number, question in enumerate(questions, 1):
        first, same = seen.setdefault(json.dumps(question.prompt), (number, question))
        if same != question:
            raise UserError(
                f"{source}, problem {number}: the question of problem {first} again, with another "
                "answer; keep one of the two"
            )
        if first != number:
            logger.warning(
                "%s, problem %d repeats problem %d; it counts once", source, number, first
            )
    return [question for _, question in seen.values()]
