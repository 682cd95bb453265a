"""A finished evaluation, read back from its run directory."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rac.errors import UserError
from rac.evaluation.responses import Response, read_responses


@dataclass(frozen=True)
class StoredEvaluation:
    """The settings and the responses of one task, by question and then by sample."""

    path: Path
    settings: dict[str, Any]
    responses: tuple[Response, ...]

    @cached_property
    def by_question(self) -> dict[int, list[Response]]:
        """The responses of each question."""
        grouped: dict[int, list[Response]] = defaultdict(list)
        for response in self.responses:
            grouped[response.index].append(response)
        return dict(grouped)

    @property
    def missing(self) -> int:
        """How many questions of the task have no response yet."""
        return max(0, int(self.settings.get("n", 0)) - len(self.by_question))


def read_evaluation(path: Path) -> StoredEvaluation:
    """Read `eval/<task>.jsonl`.

    Raises:
        UserError: it cannot be read, a line of it is damaged, or it has no response.
    """
    header, responses = read_responses(path)[:2]
    if not responses:
        raise UserError(f"{path} has no responses; run `rac eval` again")
    kept = {(r.index, r.sample): r for r in responses}
    return StoredEvaluation(path, dict(header or {}), tuple(kept[key] for key in sorted(kept)))


def find_evaluation(run: Path, task: str | None = None) -> Path:
    """The responses of `task` in the run directory `run`; of its only task when None.

    Raises:
        UserError: there is no such task in it, or several to choose from.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run directory")
    found = {path.stem: path for path in sorted((run / "eval").glob("*.jsonl"))}
    if not found:
        raise UserError(f"{run}: no eval/*.jsonl in it; run `rac eval --out {run}` first")
    if task is None and len(found) > 1:
        raise UserError(f"{run} has several tasks; choose one with --task: {', '.join(found)}")
    name = task or next(iter(found))
    if name not in found:
        raise UserError(f"{run}: no evaluation of task {name}; it has {', '.join(found)}")
    return found[name]


def response_score(response: Response, score: str) -> float:
    """The response's `score`: "accuracy" (0 or 1), or one that its grader gave, such as "f1".

    Raises:
        UserError: the grader gave no such score.
    """
    if score == "accuracy":
        return float(response.correct)
    if score not in response.scores:
        known = ", ".join(("accuracy", *response.scores))
        raise UserError(f"the responses have no score {score!r}; they have {known}")
    return response.scores[score]
