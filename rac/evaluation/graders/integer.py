"""Is the predicted answer the right integer: AIME's answers, 000 to 999."""

import re

from rac.evaluation.answers import predicted_answer
from rac.evaluation.graders.base import Grade
from rac.evaluation.graders.mathematics import MathGrader
from rac.evaluation.tasks.base import Question

INTEGER = re.compile(
    r"[*_`$\s]*(?:\\(?:text|textbf|mathrm|mathbf)\{)?[\s(]*([+-]?\d+)[\s)]*\}?[.*_`$\s]*"
)


class IntegerGrader(MathGrader):
    """Right when the prediction is the answer as an integer: 7, 007 and 7.0 are one answer.

    A prediction that is an integer alone is compared as one; any other goes to math-verify.
    """

    def grade(self, final: str, question: Question) -> Grade:
        """Compare the prediction with the answer."""
        predicted = predicted_answer(final)
        alone = INTEGER.fullmatch(predicted)
        if alone and len(alone[1]) < 20:
            return Grade(int(alone[1]) == int(question.answer), predicted)
        return super().grade(final, question)
