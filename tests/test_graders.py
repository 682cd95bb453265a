"""Graders against published conventions, hand-made cases and themselves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rac.errors import UserError
from rac.evaluation import Question
from rac.evaluation.graders import Grade, MathGrader, check_grader, check_question, make_grader
from rac.evaluation.graders.choice import read_choice
from rac.evaluation.graders.f1 import exact_match, normalize_answer, short_answer, token_f1
from rac.evaluation.graders.integer import IntegerGrader

ABCD = ("A", "B", "C", "D")
TRUTH = ("True", "False", "Uncertain")


@pytest.fixture(scope="module")
def math():
    with MathGrader() as grader:
        yield grader


@pytest.fixture(scope="module")
def integer():
    with IntegerGrader() as grader:
        yield grader


def right(grader, final, answer):
    return grader.grade(final, Question("", answer)).correct


@pytest.mark.parametrize(
    ("final", "answer", "expected"),
    [
        # The conventions that math-verify's README and its tests/test_all.py state
        (r"\boxed{7,425,000}", "7425000", True),  # thousands separators
        (r"so it is .4", "0.4", True),
        (r"The answer is $\frac{10}{9}$", "10/9", True),
        (r"$[0,1)$", r"[0,1)", True),
        (r"$[0,9)$", r"[0,1)", False),
        (r"\boxed{\frac13}", "1/3", True),  # malformed fractions
        (r"\boxed{\sqrt3}", r"\sqrt{3}", True),
        (r"$k = \frac{1}{3}$", "1/3", True),  # the last side of an equation
        (r"\boxed{\frac{1}{3} \text{ meters}}", "1/3", True),  # units
        ("28 percent", r"28\%", True),
        (r"\boxed{28}", r"28\%", True),
        (r"\boxed{28}", "0.28", False),
        (r"The answer is $\boxed{1}$ and $\boxed{2}$.", "1,2", True),  # boxes that are joined
        (
            r"\boxed{\begin{pmatrix}1&2\\3&4\end{pmatrix}}",
            r"\begin{bmatrix}1&2\\3&4\end{bmatrix}",
            True,
        ),
        (
            r"\boxed{\begin{pmatrix}1&2\\3&5\end{pmatrix}}",
            r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
            False,
        ),
        (r"\boxed{(3,\infty)}", "x>3", True),
        (r"\boxed{(1,2)}", "(2,1)", False),  # a tuple has an order, a set has none
        (r"\boxed{\{2,1\}}", "1,2", True),
        (r"\boxed{x=5}", "5", True),
        (r"\boxed{x=6}", "5", False),
        # Text, degrees, money, and what stands around a number
        (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}", True),
        (r"\boxed{Evelyn}", r"\text{Evelyn}", True),
        (r"\boxed{\text{Carla}}", r"\text{Evelyn}", False),
        (r"\boxed{90^\circ}", "90", True),
        (r"\boxed{90°}", r"90^\circ", True),
        (r"\boxed{\$36}", "36", True),
        (r"\boxed{18 dollars}", r"\$18", True),
        (r"\boxed{\text{18 dollars}}", "18", True),
        ("**204**", "204", True),
        ("The answer is 42.", "42", True),
        # A number in the box is not the box
        (r"\boxed{2x}", "2", False),
        ("2x", "2", False),
        (r"\boxed{x - 1}", "1", False),
        (r"\boxed{3 \text{ or } 4}", "4", False),
        (r"\boxed{2 pi}", "2", False),
        (r"\boxed{2 million}", "2", False),
        (r"First \boxed{5}, no: \boxed{6}", "5", False),  # the last box counts
        (r"The answer is 5. \boxed{6}", "5", False),
    ],
)
def test_math(math, final, answer, expected):
    assert right(math, final, answer) is expected


def test_a_verdict_that_does_not_come_is_noted():
    with MathGrader(seconds=2.0) as grader:
        grade = grader.grade(r"\boxed{9^{9^{9^{9}}}}", Question("", "5"))
        assert grade == Grade(False, "9^{9^{9^{9}}}", note="timeout")
        assert right(grader, r"\boxed{0.5}", r"\frac{1}{2}")  # with a new worker


def test_every_aime_answer_is_itself_and_not_the_next(integer):
    for n in range(1000):
        for spelled in (f"{n}", f"{n:03d}", rf"\boxed{{{n:03d}}}"):
            assert right(integer, spelled, str(n)), spelled
            assert right(integer, spelled, f"{n:03d}"), spelled
            assert not right(integer, spelled, str(n + 1)), spelled


@pytest.mark.parametrize(
    ("final", "expected"),
    [
        (r"\boxed{\text{073}}", True),
        ("**73**.", True),
        ("The answer is 073.", True),
        (r"\boxed{73.0}", True),
        (r"\boxed{m+n=73}", True),
        (r"\boxed{73\text{ minutes}}", True),
        (r"\boxed{730}", False),
        (r"\boxed{-73}", False),
        (r"\boxed{73x}", False),
        (r"\boxed{}", False),
        ("", False),
    ],
)
def test_integers_in_other_dress(integer, final, expected):
    assert right(integer, final, "73") is expected


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


OWN = """
from rac.evaluation.graders import Grade

def says_yes(final, question): return "yes" in final
def share(final, question): return len(final) / len(question.answer)
def full(final, question): return {"correct": 1, "scores": {"style": 0.5}, "note": "fine"}
def grade(final, question): return Grade(True, "own")
def nothing(final, question): return None
def more(final, question): return {"correct": True, "colour": "red"}
def raises(final, question): return {}["key"]
number = 3
"""


def test_a_function_of_the_users_grades(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)

    def ask(name, final, answer="four"):
        with make_grader(f"{path}:{name}") as grader:
            return grader.grade(final, Question("", answer))

    assert ask("says_yes", "yes \\boxed{2}") == Grade(True, "2")
    assert ask("says_yes", "no") == Grade(False, "no")
    assert ask("share", "on") == Grade(False, "on", {"score": 0.5})
    assert ask("share", "four") == Grade(True, "four", {"score": 1.0})
    assert ask("full", "x") == Grade(True, "x", {"style": 0.5}, "fine")
    assert ask("grade", "x") == Grade(True, "own")
    for name, note in (("nothing", "NoneType"), ("more", "colour"), ("raises", "KeyError: 'key'")):
        grade = ask(name, "x")
        assert not grade.correct and grade.predicted == "x" and note in grade.note
    with make_grader("math:isfinite") as grader:  # importable, but it takes no text
        assert "TypeError" in grader.grade("1", Question("", "1")).note


def test_graders_that_cannot_be_made(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("1 / 0")
    for name, message in (
        ("vibes", "'vibes' is not one of exact, math"),
        ("no_such_module:grade", "cannot import 'no_such_module'"),
        (f"{tmp_path}/none.py:grade", "cannot import"),
        (f"{tmp_path}/broken.py:grade", "ZeroDivisionError"),
        (f"{tmp_path}/own.py:missing", "no function 'missing'"),
        (f"{tmp_path}/own.py:number", "no function 'number'"),
    ):
        for make in (check_grader, make_grader):
            with pytest.raises(UserError, match=message):
                make(name)


def test_questions_that_a_grader_cannot_use():
    for grader, question, message in (
        ("choice", Question("", "E"), "'E' is none of A, B, C, D"),
        ("choice", Question("", "A", "ABCD"), "wants a list of labels"),
        ("f1", Question("", "A", {"alias": 1}), "wants a list of further answers"),
        ("integer", Question("", "1/2"), "wants an integer"),
    ):
        with pytest.raises(UserError, match=message):
            check_question(grader, question)
