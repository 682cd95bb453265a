"""Graders by name."""

from collections.abc import Callable

from rac.errors import UserError
from rac.evaluation.graders.base import Grade, Grader
from rac.evaluation.graders.choice import ChoiceGrader, labels
from rac.evaluation.graders.code import CodeGrader, check_reference
from rac.evaluation.graders.exact import ExactGrader
from rac.evaluation.graders.f1 import F1Grader, aliases
from rac.evaluation.graders.function import FunctionGrader, load_function
from rac.evaluation.graders.integer import IntegerGrader
from rac.evaluation.graders.mathematics import MathGrader
from rac.evaluation.tasks.base import Question

__all__ = [
    "GRADERS",
    "ExactGrader",
    "Grade",
    "Grader",
    "MathGrader",
    "check_grader",
    "check_question",
    "make_grader",
]

GRADERS: dict[str, Callable[[], Grader]] = {
    "exact": ExactGrader,
    "math": MathGrader,
    "integer": IntegerGrader,
    "choice": ChoiceGrader,
    "f1": F1Grader,
    "code": CodeGrader,
}


def make_grader(name: str) -> Grader:
    """The grader called `name`, a context manager; "module:function" is the user's own.

    Raises:
        UserError: no such grader, its library is not installed, or the function cannot be imported.
    """
    if ":" in name:
        return FunctionGrader(name)
    check_grader(name)
    return GRADERS[name]()


def check_grader(name: str) -> None:
    """Refuse a grader that cannot be made, before any work.

    Raises:
        UserError: no such grader, or the function cannot be imported.
    """
    if ":" in name:
        load_function(name)
    elif name not in GRADERS:
        raise UserError(
            f"grader {name!r} is not one of {', '.join(GRADERS)}, nor module:function or "
            "path/to/file.py:function"
        )


def check_question(grader: str, question: Question) -> None:
    """Refuse a question whose answer or reference the grader called `grader` cannot use.

    Raises:
        UserError: says what is wrong with it.
    """
    if grader == "choice":
        labels(question)
    elif grader == "code":
        check_reference(question)
    elif grader == "f1":
        aliases(question)
    elif grader == "integer" and not question.answer.strip().lstrip("+-").isdecimal():
        raise UserError(
            f"the integer grader wants an integer as the answer, got {question.answer!r}"
        )
