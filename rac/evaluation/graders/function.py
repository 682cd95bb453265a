"""A Python callable of the user's as the grader of own data."""

import importlib
import importlib.util
import logging
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from rac.errors import UserError, first_line
from rac.evaluation.answers import predicted_answer
from rac.evaluation.graders.base import Grade
from rac.evaluation.tasks.base import Question

FIELDS = {"correct", "predicted", "scores", "note"}

logger = logging.getLogger(__name__)


class FunctionGrader:
    """Calls `name`, "module:function" or "path/to/file.py:function", with (final, question).

    It returns a bool, a number (its score; right at 1 or more), a `Grade`, or a dict with
    `correct` and, if it likes, the other fields of a `Grade`. Where it raises, the response counts
    as wrong and the note says why. It runs in this process and is trusted: one that never returns
    stops the evaluation.

    Raises:
        UserError: it cannot be imported or called.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._function = load_function(name)

    def grade(self, final: str, question: Question) -> Grade:
        """What the callable says of `final`."""
        predicted = predicted_answer(final)
        try:
            return _as_grade(self._function(final, question), predicted)
        except Exception as error:  # the user's code raises anything
            note = f"{type(error).__name__}: {first_line(error)}"
            logger.warning("grader %s: %s", self.name, note)
            return Grade(False, predicted, note=note)

    def __enter__(self) -> "FunctionGrader":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def load_function(name: str) -> Callable[[str, Question], Any]:
    """Import the callable called "module:function" or "path/to/file.py:function".

    Raises:
        UserError: there is no such module, file or callable, or importing it fails.
    """
    location, _, attribute = name.rpartition(":")
    try:
        is_file = location.endswith(".py")
        module = _load_file(Path(location)) if is_file else importlib.import_module(location)
    except Exception as error:  # the user's module raises anything while it is imported
        raise UserError(
            f"grader {name!r}: cannot import {location!r} ({type(error).__name__}: "
            f"{first_line(error)}); write module:function or path/to/file.py:function"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UserError(f"grader {name!r}: {location} has no function {attribute!r}")
    return function


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _as_grade(value: Any, predicted: str) -> Grade:
    if isinstance(value, Grade):
        return value
    if isinstance(value, dict):
        if "correct" not in value or not value.keys() <= FIELDS:
            raise ValueError(f"a grade has 'correct' and maybe {FIELDS - {'correct'}}: {value!r}")
        return Grade(**{"predicted": predicted, **value, "correct": bool(value["correct"])})
    if hasattr(value, "item"):  # numpy's and torch's scalars
        value = value.item()
    if isinstance(value, bool):
        return Grade(value, predicted)
    if isinstance(value, Real):
        return Grade(float(value) >= 1, predicted, {"score": float(value)})
    raise TypeError(f"returned {type(value).__name__}, not a bool, a number or a grade")
