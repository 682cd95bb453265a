"""Graders by name."""

from collections.abc import Callable

from rac.errors import UserError
from rac.evaluation.graders.base import Grade, Grader
from rac.evaluation.graders.exact import ExactGrader
from rac.evaluation.graders.mathematics import MathGrader

__all__ = ["GRADERS", "ExactGrader", "Grade", "Grader", "MathGrader", "make_grader"]

GRADERS: dict[str, Callable[[], Grader]] = {"exact": ExactGrader, "math": MathGrader}


def make_grader(name: str) -> Grader:
    """The grader called `name`, a context manager.

    Raises:
        UserError: no such grader, or its library is not installed.
    """
    if name not in GRADERS:
        raise UserError(f"grader {name!r} is not one of {', '.join(GRADERS)}")
    return GRADERS[name]()
