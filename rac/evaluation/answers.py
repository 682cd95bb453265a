r"""Where the answer stands in a response: after `</think>`, in the last `\boxed{}`."""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

END_THINK = "</think>"
BOXED = re.compile(r"\\boxed\s*\{")


def knows_thinking(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer or its chat template has `</think>`, so that its absence counts."""
    return END_THINK in tokenizer.get_vocab() or END_THINK in str(tokenizer.chat_template or "")


def decode(tokenizer: PreTrainedTokenizerBase, output_ids: Sequence[int]) -> str:
    """The text of `output_ids` without special tokens, but with every `</think>`.

    Some tokenizers mark `</think>` as special and decoding would drop it, so the ids are cut there.
    """
    end = tokenizer.get_vocab().get(END_THINK)
    pieces: list[list[int]] = [[]]
    for token in output_ids:
        if token == end:
            pieces.append([])
        else:
            pieces[-1].append(token)
    return END_THINK.join(tokenizer.decode(p, skip_special_tokens=True) for p in pieces)


def final_text(response: str, thinks: bool) -> str | None:
    """What follows the first `</think>`; None when a thinking model never wrote it.

    The whole response when `thinks` is False and it has no `</think>`.
    """
    reasoning, end, answer = response.partition(END_THINK)
    if end:
        return answer
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
