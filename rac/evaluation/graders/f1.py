"""Short answers in words: exact match and F1 as SQuAD's evaluation counts them."""

import re
import string
from collections import Counter

from rac.errors import UserError
from rac.evaluation.answers import last_boxed
from rac.evaluation.graders.base import Grade
from rac.evaluation.tasks.base import Question

ANSWER_LINE = re.compile(r"^\W*(?:final\s+)?answer\W*:(.*\w.*)$", re.IGNORECASE | re.MULTILINE)
ARTICLES = re.compile(r"\b(a|an|the)\b")
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
PUNCTUATION = str.maketrans("", "", string.punctuation)


class F1Grader:
    r"""Right when the prediction is one of the answers after SQuAD's normalisation.

    The prediction is the last `\boxed{}`, else what follows the last "Answer:", else all of the
    text. `scores` has "em" and "f1", each the best over the answer and its aliases
    (`question.reference`).
    """

    def grade(self, final: str, question: Question) -> Grade:
        """Compare the prediction with the answer and its aliases."""
        predicted = short_answer(final)
        answers = [question.answer, *aliases(question)]
        em = max(exact_match(predicted, answer) for answer in answers)
        f1 = max(token_f1(predicted, answer) for answer in answers)
        return Grade(em == 1.0, predicted, {"em": em, "f1": f1})

    def __enter__(self) -> "F1Grader":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def aliases(question: Question) -> list[str]:
    """The other right answers, from `question.reference`.

    Raises:
        UserError: it is not a list of texts.
    """
    other = question.reference or []
    if not isinstance(other, list) or not all(isinstance(each, str) for each in other):
        raise UserError(f"the f1 grader wants a list of further answers, got {other!r:.80}")
    return other


def short_answer(final: str) -> str:
    """The few words that answer the question."""
    boxed = last_boxed(final)
    if boxed is not None:
        return TEXT_COMMAND.sub(r"\1", boxed).strip()
    lines = ANSWER_LINE.findall(final)
    return (lines[-1] if lines else final).strip(" \t\n*_`")


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces (SQuAD v1.1's evaluation)."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(predicted: str, answer: str) -> float:
    """1 when the two are the same after normalisation, else 0."""
    return float(normalize_answer(predicted) == normalize_answer(answer))


def token_f1(predicted: str, answer: str) -> float:
    """Harmonic mean of precision and recall over normalised words; two empty ones agree."""
    ours, theirs = normalize_answer(predicted).split(), normalize_answer(answer).split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))
