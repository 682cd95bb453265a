"""Mathematics and integers by published conventions; the user's own function as a grader."""

import pytest

from rac.errors import UserError
from rac.evaluation import Question
from rac.evaluation.graders import Grade, MathGrader, check_grader, check_question, make_grader
from rac.evaluation.graders.integer import IntegerGrader


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
        (r"\boxed{\textbf{(073)}}", True),
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
