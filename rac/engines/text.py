"""From token ids to text that keeps every `</think>`, and where a number of tokens ends in it."""

import os
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

END_THINK = "</think>"


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


def cut_positions(
    tokenizer: PreTrainedTokenizerBase, output_ids: Sequence[int], text: str, budgets: Sequence[int]
) -> dict[int, int]:
    """For each budget below the number of ids: how many characters of `text` its tokens make.

    A character whose bytes the budget cuts in two is not counted: the text of the first tokens may
    end in a replacement character there, so the longest common start decides.
    """
    return {
        budget: len(os.path.commonprefix([decode(tokenizer, output_ids[:budget]), text]))
        for budget in budgets
        if budget < len(output_ids)
    }
