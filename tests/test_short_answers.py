"""Multiple choice, True/False/Uncertain, and answers in a few words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rac.evaluation import Question
from rac.evaluation.graders import Grade, make_grader
from rac.evaluation.graders.choice import read_choice
from rac.evaluation.graders.f1 import exact_match, normalize_answer, short_answer, token_f1

ABCD = ("A", "B", "C", "D")
TRUTH = ("True", "False", "Uncertain")


@pytest.mark.parametrize(
    ("final", "expected"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("b.", "B"),
        ("**B**", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{(B)}", "B"),
        (r"\[\boxed{\textbf{(B) } 7am to 11am}\]", "B"),
        ("The answer is (B).", "B"),
        ("The answer is B", "B"),
        ("the answer is option (b)", "B"),
        ("**Answer:** B", "B"),
        (r"Answer: $\text{B}$", "B"),
        ("Answer: B) 7am to 11am", "B"),
        ("Answer: B 7am to 11am", "B"),
        ("Answer: B: A walk", "B"),
        ("The answer is (B), since option (A) is taken.", "B"),
        ("Option (A) is taken, so the answer is (B).", "B"),
        ("(A) is taken. (C) is closed.\nSo it must be (B).", "B"),
        ("Answer: A\nWait, no.\nAnswer: B", "B"),
        ("Answer: A\n\\boxed{B}", "B"),
        (r"The answer is (B): \boxed{7am to 11am}", "B"),
        ("A walk was possible from 7am: B", "B"),
        ("The answer is A or B", None),
        ("Answer: (A), (B)", None),
        (r"\boxed{A, B}", None),
        ("It is (A) or (B)", None),
        ("It is not (A)", None),
        ("(A) is taken and (B) is free.", None),  # no answer is announced
        ("The answer is a time between 7am and 9am", None),
        ("E", None),
        ("", None),
    ],
)
def test_letters(final, expected):
    assert read_choice(final, ABCD) == expected


@pytest.mark.parametrize(
    ("final", "expected"),
    [
        ("True", "True"),
        ("**uncertain**", "Uncertain"),
        (r"\boxed{\text{FALSE}}", "False"),
        ("Answer: False", "False"),
        ("The conclusion is **Uncertain**.", "Uncertain"),
        ("The premises do not say that it is true.\n\nAnswer: Uncertain", "Uncertain"),
        ("The answer is True, as it cannot be false.", "True"),
        ("Answer: True or Uncertain", None),
        ("Answer: not True", None),
        ("neither true nor false", None),
        ("It could be true, it could be false.", None),
        ("untrue", None),
    ],
)
def test_truth_values(final, expected):
    assert read_choice(final, TRUTH) == expected


def test_choice_grades_by_the_questions_labels():
    with make_grader("choice") as grader:
        assert grader.grade("(b)", Question("", "(B)")) == Grade(True, "B")
        assert grader.grade("A or B", Question("", "B")) == Grade(
            False, None, note="no single choice"
        )
        assert grader.grade("Answer: false", Question("", "False")) == Grade(True, "False")
        assert grader.grade("Answer: E", Question("", "E", list("ABCDE"))) == Grade(True, "E")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ABCD() \n.*{}\\$answer:isboxdtrue", max_size=60))
def test_any_text_gives_a_label_or_none(text):
    assert read_choice(text, ABCD) in (*ABCD, None)
    assert read_choice(text, TRUTH) in (*TRUTH, None)


@pytest.mark.parametrize(
    ("predicted", "answer", "em", "f1"),
    [
        ("The Denver Broncos!", "denver broncos", 1.0, 1.0),
        ("Broncos", "Denver Broncos", 0.0, 2 / 3),
        ("in the year 1912", "1912", 0.0, 0.5),  # in, year, 1912
        ("a cat sat on a cat", "cat", 0.0, 0.4),  # words count as often as both have them
        ("Paris", "London", 0.0, 0.0),
        ("", "London", 0.0, 0.0),
        ("the", "a", 1.0, 1.0),  # both empty once normalised
        ("J.R.R. Tolkien", "JRR Tolkien", 1.0, 1.0),
        ("U.S.-based", "us based", 0.0, 0.0),  # a hyphen joins: "usbased"
    ],
)
def test_f1_by_hand(predicted, answer, em, f1):
    assert exact_match(predicted, answer) == em
    assert token_f1(predicted, answer) == pytest.approx(f1)


@given(st.text(max_size=40), st.text(max_size=40))
def test_f1_is_symmetric_and_one_for_equal_answers(a, b):
    assert token_f1(a, b) == token_f1(b, a) and 0 <= token_f1(a, b) <= 1
    assert token_f1(a, a) == 1 == exact_match(a, a)
    assert normalize_answer(normalize_answer(a)) == normalize_answer(a)


def test_f1_takes_the_best_alias_and_reads_the_answer_line():
    question = Question("", "River Thames", ["Thames", "the Isis"])
    with make_grader("f1") as grader:
        grade = grader.grade("It is in London.\n\n**Answer:** The Thames.", question)
        assert grade == Grade(True, "The Thames.", {"em": 1.0, "f1": 1.0})
        grade = grader.grade("Answer: Isis river", question)
        assert not grade.correct and grade.scores == {"em": 0.0, "f1": pytest.approx(2 / 3)}
    assert short_answer("Answer: one\nFinal answer: two\n") == "two"
    assert short_answer(r"Answer: one \boxed{\text{the two}}") == "the two"
    assert short_answer("just words ") == "just words"
