"""The numbers of an evaluation, by hand and by counting."""

import dataclasses
import itertools
import math
import statistics

import pytest

from rac.evaluation.metrics import pass_at_k, summarize
from rac.evaluation.responses import Cut, Response


def response(index, sample, correct, tokens=10, reason="stop", finished=True, **more):
    fixed = {"prompt": "q", "answer": "a", "text": "t", "predicted": "a", "seconds": 1.0}
    told = {"correct": correct, "output_tokens": tokens, "finish_reason": reason}
    return Response(
        index=index, sample=sample, prompt_tokens=3, finished=finished, **fixed, **told, **more
    )


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n):
    for correct, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations(range(n), k))
        share = sum(min(chosen) < correct for chosen in subsets) / len(subsets)
        assert pass_at_k(n, correct, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_k_where_binomials_overflow():
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5)
    assert pass_at_k(10_000, 0, 1) == 0.0
    formula = 1 - math.comb(200 - 13, 100) / math.comb(200, 100)
    assert pass_at_k(200, 13, 100) == pytest.approx(formula, rel=1e-12)


def test_samples_of_one_question_are_not_independent():
    """Two questions, one always right: four samples tell no more of the spread than one."""
    responses = [response(i, s, correct=i == 0) for i in range(2) for s in range(4)]
    numbers = summarize(responses, 6.0, thinks=False, pass_at=(1, 2))
    assert (numbers.n, numbers.samples, numbers.accuracy) == (2, 4, 0.5)
    assert numbers.stderr == pytest.approx(statistics.stdev([1.0, 0.0]) / math.sqrt(2))
    assert numbers.pass_at == {1: 0.5, 2: 0.5}
    assert numbers.tokens_per_second == pytest.approx(80 / 6)
    assert numbers.unfinished_share is None


def test_scores_are_means_and_an_unfinished_response_scores_nothing():
    responses = [
        response(0, 0, True, scores={"em": 1.0, "f1": 1.0}),
        response(1, 0, False, scores={"em": 0.0, "f1": 0.5}),
        response(2, 0, False, finished=False, reason="length"),
    ]
    numbers = summarize(responses, 1.0, thinks=None)
    assert numbers.scores == pytest.approx({"em": 1 / 3, "f1": 0.5})
    assert numbers.unfinished_share == numbers.limit_share == pytest.approx(1 / 3)


def test_loops_are_counted():
    loop = response(0, 0, False)
    loop = dataclasses.replace(loop, text="So we have " + "to check the sum once more. " * 9)
    assert summarize([loop, response(1, 0, True)], 1.0, thinks=None).repeating_share == 0.5


def test_budgets_by_hand():
    right, wrong = Cut(True, "a", True), Cut(False, None, False)
    responses = [
        response(0, 0, True, tokens=100, budgets={50: right}),
        response(0, 1, True, tokens=80, budgets={50: wrong}),
        response(1, 0, True, tokens=20),
        response(1, 1, False, tokens=40, reason="length", finished=False),
    ]
    at = summarize(responses, 1.0, True, budgets=(50,)).budgets[50]
    assert (at.accuracy, at.output_tokens) == (0.5, (50 + 50 + 20 + 40) / 4)
    assert (at.limit_share, at.unfinished_share) == (0.75, 0.5)
    assert at.stderr == 0.0  # both questions have a mean of a half
