"""From graded responses to numbers."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, NamedTuple

import numpy as np
from pydantic.dataclasses import dataclass

from rac.evaluation.repetition import find_repetition
from rac.evaluation.responses import Response


@dataclass(frozen=True)
class BudgetResult:
    """The same responses, had generation stopped after a number of tokens.

    How long that would have taken is not known. `limit_share`: responses longer than the budget,
    or cut before. See `EvalResult` for the rest.
    """

    accuracy: float
    stderr: float
    output_tokens: float
    limit_share: float
    unfinished_share: float | None


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found; `dataclasses.asdict` gives the contents of its summary file.

    `n` questions were answered `samples` times each; `accuracy` is the mean over all responses,
    pass@1. `stderr` is that of a proportion, sqrt(p (1 - p) / n), and with several samples that of
    the mean over the questions' own means. Of all responses, `limit_share` hit the token limit and
    `unfinished_share` never wrote `</think>` (None: the model has none); `repeating_share` end in a
    loop (`find_repetition`). `pass_at` maps k to the unbiased estimate of pass@k, `scores` a
    grader's further measures to their means, `budgets` a number of tokens to the result at that
    limit. `minutes` is wall time of generation and grading,
    added up over resumed parts. `batch_size` is None where the engine decides. `settings` is what
    has to be equal for two results to be comparable, and a resumed evaluation to continue.
    """

    task: str
    pattern: str
    calibration: str
    solver: str | None
    model: str
    source_model: str
    sparsity: float
    n: int
    accuracy: float
    stderr: float
    minutes: float
    output_tokens: float
    output_tokens_median: float
    output_tokens_p95: float
    tokens_per_second: float
    limit_share: float
    unfinished_share: float | None
    batch_size: int | None
    device: str
    settings: dict[str, Any]
    engine: str = "transformers"
    samples: int = 1
    repeating_share: float | None = None
    pass_at: dict[int, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    budgets: dict[int, BudgetResult] = field(default_factory=dict)


class Numbers(NamedTuple):
    """The measured part of an `EvalResult`."""

    n: int
    samples: int
    accuracy: float
    stderr: float
    minutes: float
    output_tokens: float
    output_tokens_median: float
    output_tokens_p95: float
    tokens_per_second: float
    limit_share: float
    unfinished_share: float | None
    repeating_share: float
    pass_at: dict[int, float]
    scores: dict[str, float]
    budgets: dict[int, BudgetResult]


def standard_error(accuracy: float, n: int) -> float:
    """The standard error of a proportion, sqrt(p (1 - p) / n)."""
    return math.sqrt(accuracy * (1 - accuracy) / n)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that one of k responses is right, when `correct` of n were; 1 <= k <= n.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. (arXiv 2107.03374), as a product
    of factors near 1, so that no binomial overflows.
    """
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))


def summarize(
    responses: Sequence[Response],
    seconds: float,
    thinks: bool | None,
    pass_at: Sequence[int] = (1,),
    budgets: Sequence[int] = (),
) -> Numbers:
    """The numbers of responses that took `seconds` of wall time: as many to each of n questions.

    `thinks` False: the model has no `</think>`, so its absence is not counted.
    """
    count = len(responses)
    lengths = [r.output_tokens for r in responses]
    questions = _by_question(responses, lambda r: r.correct)
    samples = count // len(questions)
    accuracy = sum(r.correct for r in responses) / count
    names = sorted({name for r in responses for name in r.scores})
    return Numbers(
        n=len(questions),
        samples=samples,
        accuracy=accuracy,
        stderr=_stderr(questions),
        minutes=seconds / 60,
        output_tokens=statistics.fmean(lengths),
        output_tokens_median=float(statistics.median(lengths)),
        output_tokens_p95=float(np.percentile(lengths, 95)),
        tokens_per_second=sum(lengths) / seconds if seconds > 0 else 0.0,
        limit_share=sum(r.finish_reason == "length" for r in responses) / count,
        unfinished_share=_share(responses, thinks, lambda r: not r.finished),
        repeating_share=sum(find_repetition(r.text) is not None for r in responses) / count,
        pass_at={
            k: statistics.fmean(pass_at_k(len(q), sum(q), k) for q in questions) for k in pass_at
        },
        scores={n: sum(r.scores.get(n, 0.0) for r in responses) / count for n in names},
        budgets={budget: _at_budget(responses, budget, thinks) for budget in budgets},
    )


def _at_budget(responses: Sequence[Response], budget: int, thinks: bool | None) -> BudgetResult:
    cut = {id(r): r.budgets[budget] for r in responses if budget in r.budgets}
    questions = _by_question(responses, lambda r: cut.get(id(r), r).correct)
    limited = sum(id(r) in cut or r.finish_reason == "length" for r in responses)
    return BudgetResult(
        accuracy=statistics.fmean(value for q in questions for value in q),
        stderr=_stderr(questions),
        output_tokens=statistics.fmean(min(r.output_tokens, budget) for r in responses),
        limit_share=limited / len(responses),
        unfinished_share=_share(responses, thinks, lambda r: not cut.get(id(r), r).finished),
    )


def _by_question(
    responses: Sequence[Response], value: Callable[[Response], bool]
) -> list[list[bool]]:
    questions: dict[int, list[bool]] = {}
    for response in responses:
        questions.setdefault(response.index, []).append(value(response))
    return list(questions.values())


def _stderr(questions: list[list[bool]]) -> float:
    """Binomial where each question was asked once; else from the spread of the questions' means."""
    means = [statistics.fmean(q) for q in questions]
    samples = len(questions[0])
    if samples == 1 or len(means) == 1:
        return standard_error(statistics.fmean(means), len(means) * samples)
    return statistics.stdev(means) / math.sqrt(len(means))


def _share(
    responses: Sequence[Response], thinks: bool | None, counted: Callable[[Response], bool]
) -> float | None:
    return None if thinks is False else sum(map(counted, responses)) / len(responses)
