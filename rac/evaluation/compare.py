"""Two models on the same problems: how sure is it that one is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rac.errors import UserError
from rac.evaluation.stored import StoredEvaluation, response_score

RESAMPLES = 10_000
CONFIDENCE = 0.95
CHUNK_ELEMENTS = 20_000_000
PROTOCOL = ("max_new_tokens", "temperature", "top_p", "samples", "prompts", "raw_prompts")
LISTED = 3


@dataclass(frozen=True)
class Paired:
    """B against A, question by question.

    `a` and `b` are mean scores and `difference` = b - a; `low` and `high` bound its 95% paired
    bootstrap interval. `only_a` counts questions on which A scores higher, `only_b` those on which
    B does; `p_value` is the exact two-sided binomial test of the two counts: McNemar's test where
    each question has one graded response, otherwise a sign test on the questions' means.
    `b_better` is the share of bootstrap resamples in which B is ahead, ties counted half: how often
    B would lead if the questions were drawn again from questions like these. It is no p-value and
    says nothing of other kinds of question. `notes` say in what the two evaluations differ.
    """

    questions: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    b_better: float
    only_a: int
    only_b: int
    p_value: float
    notes: tuple[str, ...] = ()


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test: 2 P(X <= min), X ~ Binomial(only_a + only_b, 1/2).

    1 where the two counts are equal, so also without any discordant pair.

    Source: McNemar, Psychometrika 12 (1947); the exact form replaces its chi-square.
    """
    n, least = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)


def bootstrap(
    differences: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Percentile interval of the mean difference, and the share of resamples above 0 (ties half).

    A resample draws as many questions as there are, with replacement. How often each distinct value
    is drawn is multinomial, and that is what is sampled: the same distribution, far fewer numbers.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    values, counts = np.unique(np.asarray(differences, dtype=np.float64), return_counts=True)
    n, generator = int(counts.sum()), np.random.default_rng(seed)
    rows = max(1, CHUNK_ELEMENTS // len(values))
    sums = [
        generator.multinomial(n, counts / n, size=min(rows, resamples - start)) @ values
        for start in range(0, resamples, rows)
    ]
    means = np.concatenate(sums) / n
    means[np.abs(means) < 1e-12] = 0.0  # sums of thirds that cancel
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high), float((means > 0).mean() + (means == 0).mean() / 2)


def compare_scores(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Paired:
    """Compare the scores of A and B on the same questions, one mean a question each."""
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    differences[np.abs(differences) < 1e-12] = 0.0
    low, high, b_better = bootstrap(differences, seed=seed)
    only_a, only_b = int((differences < 0).sum()), int((differences > 0).sum())
    return Paired(
        questions=len(differences),
        a=float(np.mean(a)),
        b=float(np.mean(b)),
        difference=float(differences.mean()),
        low=low,
        high=high,
        b_better=b_better,
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar(only_a, only_b),
    )


def compare(
    a: StoredEvaluation, b: StoredEvaluation, *, score: str = "accuracy", seed: int = 0
) -> Paired:
    """Compare two evaluations of the same problems.

    Several samples a question are averaged first: questions are drawn, not samples.

    Raises:
        UserError: the problems differ, one evaluation is not finished, or there is no such score.
    """
    _require_same_problems(a, b)
    means = [
        [
            float(np.mean([response_score(r, score) for r in evaluation.by_question[index]]))
            for index in sorted(evaluation.by_question)
        ]
        for evaluation in (a, b)
    ]
    paired = compare_scores(*means, seed=seed)
    return Paired(**{**vars(paired), "notes": _differences(a, b)})


def _require_same_problems(a: StoredEvaluation, b: StoredEvaluation) -> None:
    for evaluation in (a, b):
        if evaluation.missing:
            raise UserError(
                f"{evaluation.path}: {evaluation.missing} of {evaluation.settings['n']} questions "
                "have no response yet; finish the evaluation with the same `rac eval`"
            )
    where = f"{a.path} and {b.path} cannot be compared"
    for key in ("task", "grader", "n"):
        there, here = a.settings.get(key), b.settings.get(key)
        if there != here:
            raise UserError(f"{where}: {key} is {there!r} in the first, {here!r} in the second")
    if a.by_question.keys() != b.by_question.keys():
        odd = sorted(a.by_question.keys() ^ b.by_question.keys())
        listed = ", ".join(map(str, odd[:LISTED])) + (", ..." if len(odd) > LISTED else "")
        raise UserError(f"{where}: only one of them has the questions {listed}")
    for index, responses in a.by_question.items():
        first, second = responses[0], b.by_question[index][0]
        for what, there, here in (
            ("prompt", first.prompt, second.prompt),
            ("answer", first.answer, second.answer),
        ):
            if there != here:
                raise UserError(
                    f"{where}: the {what} of question {index} is {str(there)[:60]!r} in the first, "
                    f"{str(here)[:60]!r} in the second"
                )
    if a.settings.get("problems") != b.settings.get("problems"):
        raise UserError(f"{where}: the problems' digests differ (other references or choices)")


def _differences(a: StoredEvaluation, b: StoredEvaluation) -> tuple[str, ...]:
    """What of the protocol differs, a line each; the models themselves are not part of it."""
    notes = []
    for key in PROTOCOL:
        there, here = a.settings.get(key), b.settings.get(key)
        if there == here:
            continue
        if key == "prompts":
            notes.append("the rendered prompts differ: another tokenizer or chat template")
        else:
            notes.append(f"{key} is {there} for A, {here} for B")
    return tuple(notes)
