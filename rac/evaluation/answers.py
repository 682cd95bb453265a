r"""Where the answer stands in a response: after `</think>`, in the last `\boxed{}`."""

import re

from rac.engines.text import END_THINK

START_THINK = "<think>"
BOXED = re.compile(r"\\boxed\s*\{")


def final_text(response: str, thinks: bool | None, finish_reason: str = "stop") -> str | None:
    """What follows the first `</think>`; None when the response is unfinished.

    Without `</think>` a thinking model (`thinks` True) has not finished, and the whole response of
    another (False) is its final text. When it is not known (None), a response is unfinished if it
    hit the limit or opened a `<think>` that it never closed. One that the engine gave up
    (`finish_reason` "error") always is.
    """
    reasoning, end, answer = response.partition(END_THINK)
    if finish_reason == "error":
        return None
    if end:
        return answer
    if thinks is None:
        thinks = finish_reason == "length" or START_THINK in reasoning
    return None if thinks else reasoning


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` whose braces balance; None when there is none.

    `\{` and `\}` are characters, not braces, as in LaTeX.
    """
    for match in reversed(list(BOXED.finditer(text))):
        depth, position = 1, match.end()
        while position < len(text):
            character = text[position]
            if character == "\\":
                position += 2
                continue
            depth += (character == "{") - (character == "}")
            if depth == 0:
                return text[match.end() : position]
            position += 1
    return None


def predicted_answer(answer: str) -> str:
    r"""The last `\boxed{}` of the final text, else all of it, stripped."""
    boxed = last_boxed(answer)
    return (answer if boxed is None else boxed).strip()
