"""Accuracy, minutes and verbosity of a model on problems with known answers."""

from rac.evaluation.conditions import Conditions
from rac.evaluation.metrics import EvalResult
from rac.evaluation.runner import evaluate
from rac.evaluation.tasks import Question, Task, load_task

__all__ = ["Conditions", "EvalResult", "Question", "Task", "evaluate", "load_task"]
