"""Is the predicted answer the answer, character by character."""

from rac.evaluation.answers import predicted_answer
from rac.evaluation.graders.base import Grade
from rac.evaluation.tasks.base import Question


class ExactGrader:
    r"""Right when the last `\boxed{}` (else all of the text) is the answer, but for space."""

    def grade(self, final: str, question: Question) -> Grade:
        """Compare the prediction with the answer."""
        predicted = predicted_answer(final)
        return Grade(predicted == question.answer.strip(), predicted)

    def __enter__(self) -> "ExactGrader":
        return self

    def __exit__(self, *exception: object) -> None:
        pass
