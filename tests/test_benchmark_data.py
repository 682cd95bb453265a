"""Loaders and graders over complete benchmark files: RAC_BENCHMARK_DATA names their folder."""

import os
from pathlib import Path

import pytest

from rac.evaluation import load_task
from rac.evaluation.graders import make_grader

FOLDER = os.environ.get("RAC_BENCHMARK_DATA")

pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="set RAC_BENCHMARK_DATA to a folder with the benchmarks' files"
)

SIZES = {
    "math500": {500},
    "aime24": {30},
    "gsm8k": {1319},
    "folio": {203, 204},
    "bbh-temporal": {250},
}
PHRASES = {
    "math": (r"So it is \boxed{%s}.", "The answer is $%s$."),
    "integer": (r"\boxed{%s}", "The answer is %s."),
    "choice": ("Answer: %s", "The answer is **(%s)**.", r"\boxed{\text{%s}}"),
}
# x=5 is the answer 5 for math-verify, and no other two of MATH-500's answers are one
ALIKE = {frozenset({"5", "x=5"})}


@pytest.mark.parametrize("name", SIZES)
def test_answers_are_right_for_themselves_and_wrong_for_others(name):
    task = load_task(name, Path(FOLDER))
    assert len(task.questions) in SIZES[name]
    others = [*task.questions[1:], task.questions[0]]
    with make_grader(task.grader) as grader:
        for question, other in zip(task.questions, others, strict=True):
            for phrase in PHRASES[task.grader]:
                final = phrase.replace("%s", question.answer)
                assert grader.grade(final, question).correct, (final, question.answer)
            wrong = other.answer
            if wrong != question.answer and frozenset({wrong, question.answer}) not in ALIKE:
                final = PHRASES[task.grader][0].replace("%s", wrong)
                assert not grader.grade(final, question).correct, (final, question.answer)
