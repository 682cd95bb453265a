"""From graded responses to numbers."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic.dataclasses import dataclass

from rac.evaluation.responses import Response


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found; `dataclasses.asdict` gives the contents of its summary file.

    `stderr` is that of a proportion, sqrt(p (1 - p) / n). Of the n responses, `limit_share` hit
    the token limit and `unfinished_share` never wrote `</think>` (None: the model has none).
    `minutes` is wall time of generation and grading, added up over resumed parts. `settings` is
    what has to be equal for two results to be comparable, and a resumed evaluation to continue.
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
    batch_size: int
    device: str
    settings: dict[str, Any]


class Numbers(NamedTuple):
    """The measured part of an `EvalResult`."""

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


def standard_error(accuracy: float, n: int) -> float:
    """The standard error of a proportion, sqrt(p (1 - p) / n)."""
    return math.sqrt(accuracy * (1 - accuracy) / n)


def summarize(responses: Sequence[Response], seconds: float, thinks: bool) -> Numbers:
    """The numbers of n >= 1 responses that took `seconds` of wall time together."""
    n = len(responses)
    lengths = [r.output_tokens for r in responses]
    accuracy = sum(r.correct for r in responses) / n
    return Numbers(
        n=n,
        accuracy=accuracy,
        stderr=standard_error(accuracy, n),
        minutes=seconds / 60,
        output_tokens=statistics.fmean(lengths),
        output_tokens_median=float(statistics.median(lengths)),
        output_tokens_p95=float(np.percentile(lengths, 95)),
        tokens_per_second=sum(lengths) / seconds if seconds > 0 else 0.0,
        limit_share=sum(r.finish_reason == "length" for r in responses) / n,
        unfinished_share=sum(not r.finished for r in responses) / n if thinks else None,
    )
