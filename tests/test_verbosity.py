"""Short and long outputs, and the collapse point, against hand computation and the paper."""

import pytest
from report_runs import response

from rac.evaluation.collapse import Collapse, collapse_point
from rac.evaluation.verbosity import count_words, short_and_long
from rac.report.paper.compression import SPARSITY_LEVELS


def test_words_are_those_of_reasoning_and_answer():
    assert count_words("<think>First, 1 + 1.\n\nSo</think>The answer is 2.") == 9
    assert count_words("  ") == 0


def outputs(lengths, correct, **more):
    return [
        response(i, c, text="w " * n, output_tokens=2 * n + 1, **more)
        for i, (n, c) in enumerate(zip(lengths, correct, strict=True))
    ]


def test_short_and_long_by_hand():
    found = short_and_long(
        outputs([5, 1, 9, 3, 7, 2, 8, 4, 6, 10], [1, 1, 0, 0, 0, 1, 1, 0, 0, 0]), 30
    )
    assert (found.percent, found.count) == (30, 3)
    assert found.short["accuracy"] == pytest.approx(2 / 3)  # 1, 2 and 3 words
    assert found.long["accuracy"] == pytest.approx(1 / 3)  # 8, 9 and 10
    assert found.word_ratio == pytest.approx(27 / 6)
    assert found.token_ratio == pytest.approx((17 + 19 + 21) / (3 + 5 + 7))


@pytest.mark.parametrize(
    ("questions", "percent", "count"),
    [
        (30, 30, 9),
        (30, 20, 6),
        (203, 30, 60),
        (203, 20, 40),
        (100, 30, 30),
        (100, 20, 20),
        (4, 20, 0),
    ],
)
def test_the_paper_rounds_down(questions, percent, count):
    found = short_and_long(outputs(range(1, questions + 1), [True] * questions), percent)
    assert (found.count if found else 0) == count


def test_folio_scores_of_the_paper_are_whole_answers_of_60_and_40():
    """83.3 is 50 of 60; no number of 61 answers rounds to it."""
    assert round(100 * 50 / 60, 1) == 83.3
    assert all(round(100 * k / 61, 1) != 83.3 for k in range(62))
    assert round(100 * 33 / 40, 1) == 82.5
    assert all(round(100 * k / 41, 1) != 82.5 for k in range(42))


def test_ties_go_by_question_and_units_may_differ():
    rows = [response(i, i == 0, text="a b", output_tokens=10 - i) for i in range(5)]
    by_words, by_tokens = short_and_long(rows, 20), short_and_long(rows, 20, unit="tokens")
    assert by_words.short["accuracy"] == 1.0 and by_words.long["accuracy"] == 0.0
    assert by_tokens.short["accuracy"] == 0.0 and by_tokens.long["accuracy"] == 1.0
    assert by_words.word_ratio == 1.0 and by_tokens.token_ratio == pytest.approx(10 / 6)


def test_scores_beside_accuracy_and_empty_outputs():
    rows = outputs([0, 2, 3, 4], [False] * 4)
    rows = [type(r)(**{**vars(r), "scores": {"f1": r.index / 4}}) for r in rows]
    found = short_and_long(rows, 25)
    assert (found.short["f1"], found.long["f1"]) == (0.0, 0.75)
    assert found.word_ratio is None and found.token_ratio == 9.0


def test_collapse_by_hand():
    assert collapse_point({0.0: 1.0, 0.5: 0.5, 0.6: 0.499}) == Collapse(0.5, 0.6)
    assert collapse_point({0.6: 0.4, 0.0: 1.0, 0.5: 0.7}) == Collapse(0.5, 0.6)
    assert collapse_point({0.0: 1.0, 0.3: 0.1}) == Collapse(0.0, 0.3)
    assert collapse_point({0.0: 1.0, 0.3: 0.9}) == Collapse(0.3, None)
    assert collapse_point({0.5: 0.1}) is None
    assert str(Collapse(0.4, 0.5)) == "40–50%" and str(Collapse(0.8, None)) == "not up to 80%"


@pytest.mark.parametrize(
    ("model", "task", "expected"),
    [
        ("R1-Distill-Llama", "aime24", (0.4, 0.5)),  # "collapses between 40% and 50%"
        ("R1-Distill-Llama", "bbh-temporal", (0.6, 0.7)),  # "roughly between 60% and 70%"
        ("R1-Distill-Llama", "musique", (0.3, 0.4)),  # "between 30% and 40% sparsity on MuSiQue"
        ("R1-Distill-Llama", "folio", (0.7, 0.8)),  # "roughly between 60% and 70%": the exception
        ("R1-Distill-Qwen", "aime24", (0.4, 0.5)),
        ("R1-Distill-Qwen", "bbh-temporal", (0.6, 0.7)),
        ("R1-Distill-Qwen", "folio", (0.6, 0.7)),
    ],
)
def test_the_papers_collapse_points(model, task, expected):
    scores = {row.sparsity: row.scores[task][0] for row in SPARSITY_LEVELS if row.model == model}
    assert len(scores) == 8 and collapse_point(scores) == expected
