r"""Multiple choice and True/False/Uncertain: which label the final text settles on.

math-verify's own extraction of letters needs white space around them and misses "(B)" and
"\boxed{B}", so the reading is done here.
"""

import re

from rac.errors import UserError
from rac.evaluation.answers import last_boxed
from rac.evaluation.graders.base import Grade
from rac.evaluation.tasks.base import Question
from rac.evaluation.tasks.reasoning import LETTERS, TRUTH_VALUES

WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|boxed)\s*\{([^{}]*)\}")
MARKUP = re.compile(r"\\[()\[\],;! ]|[*_`$\\{}]")
ANSWER = re.compile(r"\banswer\b(?:\s+is\b|\s*:|\s)", re.IGNORECASE)
OPTION = re.compile(r"\b(?:option|choice)\b(?:\s+is\b|\s*:|\s)", re.IGNORECASE)
# A bare capital is a label where no other word follows it, as one does in "A walk".
AFTER_CAPITAL = r"(?=\s*(?:[).:,;/&]|$)|\s+(?:or|and|is|as|because|since)\b|\s+[\d(])"
FIRST = re.compile(r"\W*(?:(?:the\s+)?(?:option|choice|letter)\W*)?", re.IGNORECASE)
LISTED = re.compile(r"\W*(?:or|and)?\W*(?:option|choice)?\W*", re.IGNORECASE)
DENIED = re.compile(r"\b(?:not|neither|nor|isn't)\W+(?:\w+\W+)?$", re.IGNORECASE)


class ChoiceGrader:
    r"""Right when the final text settles on the answer's label and no other.

    The labels are `question.reference`, A to D or True/False/Uncertain where it is None. Read in
    this order, the first place that names a label decides, and naming two there is wrong: the last
    `\boxed{}`; the line behind the last "answer", then behind "option" or "choice"; the last line;
    the whole text.
    """

    def grade(self, final: str, question: Question) -> Grade:
        """Compare the label that `final` settles on with the answer's."""
        known = labels(question)
        predicted = read_choice(final, known)
        note = "" if predicted else "no single choice"
        return Grade(predicted == _label(question.answer, known), predicted, note=note)

    def __enter__(self) -> "ChoiceGrader":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def labels(question: Question) -> tuple[str, ...]:
    """The labels to choose from.

    Raises:
        UserError: `reference` is not a list of texts, or the answer is none of the labels.
    """
    known = question.reference
    if known is None:
        truth = question.answer.strip().lower() in map(str.lower, TRUTH_VALUES)
        known = TRUTH_VALUES if truth else LETTERS
    if not isinstance(known, list | tuple) or not all(isinstance(k, str) and k for k in known):
        raise UserError(f"the choice grader wants a list of labels, got {known!r:.80}")
    if _label(question.answer, tuple(known)) is None:
        raise UserError(f"the answer {question.answer!r} is none of {', '.join(known)}")
    return tuple(known)


def _label(answer: str, known: tuple[str, ...]) -> str | None:
    bare = answer.strip().strip("().").lower()
    return next((label for label in known if label.lower() == bare), None)


def read_choice(final: str, known: tuple[str, ...]) -> str | None:
    """The label that `final` settles on; None when it names none, or several at that place."""
    boxed = last_boxed(final)
    text = _plain(final)
    lines = text.strip().splitlines() or [""]
    places = [] if boxed is None else [_plain(boxed)]
    for anchor in (ANSWER, OPTION):
        places += [text[match.end() :].partition("\n")[0] for match in anchor.finditer(text)][::-1]
    settled = [(place, True) for place in places] + [(lines[-1], False), (text, False)]
    for place, leads in settled:
        named = _named(place.strip(), known, leads)
        if named:
            return named.pop() if len(named) == 1 else None
    return None


def _plain(text: str) -> str:
    """`text` without the LaTeX and Markdown that only dresses it."""
    previous = None
    while previous != text:
        previous, text = text, WRAPPER.sub(r"\1", text)
    return MARKUP.sub("", text)


def _named(place: str, known: tuple[str, ...], leads: bool) -> set[str]:
    """The labels that `place` names; a denied one counts as two, for nothing is settled then.

    Where `leads`, a label that stands first and is not one of a list is the only one that counts.
    """
    whole = _label(place.rstrip(".!:, "), known)
    if whole is not None:
        return {whole}
    found = sorted(_mentions(place, known), key=lambda match: match.start())
    names = [_label(match[1], known) or "" for match in found]
    if leads and found and FIRST.fullmatch(place[: found[0].start()]):
        listed = len(found) > 1 and LISTED.fullmatch(place[found[0].end() : found[1].start()])
        return set(names[:2]) if listed else {names[0]}
    denied = any(DENIED.search(place[: match.start()]) for match in found)
    return {*names, ""} if denied else set(names)


def _mentions(place: str, known: tuple[str, ...]) -> list[re.Match[str]]:
    any_label = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
    if not all(len(label) == 1 for label in known):
        return list(re.finditer(rf"\b({any_label})\b", place, re.IGNORECASE))
    marked = re.finditer(rf"\(\s*({any_label})\s*\)", place, re.IGNORECASE)
    bare = re.finditer(rf"(?<![\w'’(])({any_label}){AFTER_CAPITAL}", place)
    return [*marked, *bare]
