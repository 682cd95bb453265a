"""Ask a model every question of a task, grade the responses, write both down."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rac.engines import Engine, Request
from rac.errors import UserError
from rac.evaluation.conditions import Conditions, request_seed
from rac.evaluation.graders import Grader, make_grader
from rac.evaluation.grading import GradingPool
from rac.evaluation.metrics import EvalResult, summarize
from rac.evaluation.responses import Log, Response, Ungraded, read_log
from rac.evaluation.tasks import Task, load_task
from rac.files import locked, write_json

logger = logging.getLogger(__name__)


def evaluate(
    engine: Engine,
    task: str | Task,
    conditions: Conditions | None = None,
    *,
    out_dir: Path,
    limit: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> EvalResult:
    """Measure accuracy, minutes and output tokens of the engine's model on `task`.

    Responses go to `out_dir/eval/<task>.jsonl` as they finish, the summary to `<task>.json`. What
    the engine gives is on disk (`<task>.jsonl.ungraded`, until the end) before it is graded. The
    same call continues after an interruption and generates only what is missing. What `conditions`
    leave open are the task's published settings. `limit` keeps the first questions. `progress` is
    given the number of responses finished since its last call, from any thread.

    Raises:
        UserError: a bad task or conditions, prompts that the engine cannot take, or an earlier
            evaluation there with other settings; nothing has been generated or overwritten then.
            Or the engine could not go on: what it gave is on disk, and the same call continues.
    """
    task = load_task(task, limit=limit) if isinstance(task, str) else _first(task, limit)
    conditions = (conditions or Conditions()).settled(task)
    described = engine.describe()
    settings = _settings(engine, task, conditions)
    path = responses_path(out_dir, task.name)
    aside = _ungraded_path(path)
    with (
        locked(path.parent),
        make_grader(task.grader) as grader,
        Log(path, settings, Response, overwrite) as log,
        Log(aside, settings, Ungraded, overwrite) as ungraded,
    ):
        run = _Run(engine, task, conditions, log, ungraded, progress)
        seconds = run.finish(grader)
        responses = [log.rows[key] for key in sorted(log.rows)]
        numbers = summarize(
            responses, seconds, engine.thinks, conditions.pass_at, conditions.budgets
        )
        result = EvalResult(
            task=task.name,
            **described,
            **numbers._asdict(),
            engine=engine.name,
            batch_size=engine.batch_size,
            device=engine.device,
            settings=settings,
        )
        write_json(path.with_suffix(".json"), asdict(result))
        aside.unlink()
    if engine.thinks is not False and not any("</think>" in r.text for r in responses):
        logger.warning("%s: not one response has </think>", path)
    return result


def responses_path(out_dir: Path, task: str) -> Path:
    """Where the responses to a task are written."""
    return Path(out_dir) / "eval" / f"{task}.jsonl"


def _ungraded_path(path: Path) -> Path:
    return path.with_suffix(".jsonl.ungraded")


class _Run:
    """The responses that an evaluation still lacks."""

    def __init__(
        self,
        engine: Engine,
        task: Task,
        conditions: Conditions,
        log: Log[Response],
        ungraded: Log[Ungraded],
        progress: Callable[[int], None] | None,
    ) -> None:
        self.engine, self.task, self.conditions = engine, task, conditions
        self.log, self.ungraded = log, ungraded
        self.report = progress or (lambda count: None)
        self.before, self.start = max(log.seconds, ungraded.seconds), time.perf_counter()

    def finish(self, grader: Grader) -> float:
        """Generate, grade and write them; returns the wall seconds of all parts."""
        self.report(len(self.log.rows))
        missing = list(self._missing())
        waiting = [row for key, row in self.ungraded.rows.items() if key not in self.log.rows]
        if missing or waiting:
            self.log.path.with_suffix(".json").unlink(missing_ok=True)
            with GradingPool(
                grader, self.task, self.log, self.engine.thinks, self._clock, self.report
            ) as pool:
                for row in waiting:
                    pool.submit(row)
                for row in self._generate(missing):
                    pool.submit(row)
        return self.log.seconds

    def _missing(self) -> Iterator[Request]:
        """Every question once, then every question again: an early end has seen all questions."""
        questions = self.task.questions
        for number in range(self.conditions.samples * len(questions)):
            sample, index = divmod(number, len(questions))
            if (index, sample) not in self.log.rows and (index, sample) not in self.ungraded.rows:
                seed = request_seed(self.conditions.seed, number)
                yield Request(number, questions[index].prompt, seed)

    def _generate(self, missing: list[Request]) -> Iterator[Ungraded]:
        """What the engine gives, each written down before it is handed on."""
        sampling, budgets = self.conditions.sampling, self.conditions.budgets
        try:
            with closing(self.engine.complete(missing, sampling, budgets)) as completions:
                for completion in completions:
                    sample, index = divmod(completion.index, len(self.task.questions))
                    row = Ungraded(index, sample, completion, self._clock())
                    self.ungraded.append(row)
                    yield row
        except UserError as error:
            done = len(self.log.rows.keys() | self.ungraded.rows.keys())
            total = self.conditions.samples * len(self.task.questions)
            raise UserError(
                f"{error}; {done} of {total} responses are on disk in {self.log.path.parent}, "
                "and the same command continues"
            ) from error

    def _clock(self) -> float:
        return self.before + time.perf_counter() - self.start


def check_responses(out_dir: Path, task: str) -> None:
    """Refuse a damaged file of responses before a model is loaded.

    Raises:
        UserError: names the line.
    """
    path = responses_path(out_dir, task)
    for file, kind in ((path, Response), (_ungraded_path(path), Ungraded)):
        if file.exists():
            read_log(file, kind)


def _first(task: Task, limit: int | None) -> Task:
    if limit is not None and limit < 1:
        raise UserError(f"the number of problems must be at least 1, got {limit}")
    return replace(task, questions=task.questions[:limit])


def _settings(engine: Engine, task: Task, conditions: Conditions) -> dict[str, Any]:
    """What must be equal for an evaluation to continue: model, prompts, task and sampling."""
    return {
        "task": task.name,
        "problems": task.digest,
        "n": len(task.questions),
        "grader": task.grader,
        **asdict(conditions.sampling),
        "samples": conditions.samples,
        "budgets": list(conditions.budgets),
        "engine": engine.name,
        **engine.settings([q.prompt for q in task.questions]),
    }
