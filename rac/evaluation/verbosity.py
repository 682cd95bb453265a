"""Are a model's short outputs better than its long ones."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rac.evaluation.responses import Response

THINK_TAGS = re.compile(r"</?think>")
PERCENTS = (30, 20)


@dataclass(frozen=True)
class ShortLong:
    """The shortest and the longest `percent` of a model's outputs, `count` responses each.

    `short` and `long` map "accuracy" and every score of the grader to its mean. `word_ratio` and
    `token_ratio` are the mean length of the long over that of the short ones, None where the short
    ones are empty.
    """

    percent: int
    count: int
    short: dict[str, float]
    long: dict[str, float]
    word_ratio: float | None
    token_ratio: float | None


def count_words(text: str) -> int:
    """Words of the reasoning and of the final sentences, which is how the paper counts tokens.

    Source: "When Reasoning Meets Compression", section 4.3: reasoning and final prediction are
    extracted, and "words within each output" treated as tokens. So what stands between white space
    counts one, and the tags around the reasoning do not count.
    """
    return len(THINK_TAGS.sub(" ", text).split())


def short_and_long(
    responses: Sequence[Response], percent: int, *, unit: str = "words"
) -> ShortLong | None:
    """Scores and length ratio of the shortest and longest `percent` of `responses`.

    `unit` ranks by "words" (the paper's) or by the model's "tokens". A group has
    floor(percent * n / 100) responses: the paper's FOLIO scores at 30% are multiples of 1/60, and
    60.9 is what 30% of its 203 questions are (20%: multiples of 1/40, of 40.6). Of equally long
    outputs the one asked first counts as shorter. None when a group would be empty, or when
    `percent` is above 50 and the groups would overlap.

    Source: the same paper, Tables 4 and 5.
    """
    count = percent * len(responses) // 100
    if count == 0 or percent > 50:
        return None
    words = {id(r): count_words(r.text) for r in responses}
    lengths = words if unit == "words" else {id(r): r.output_tokens for r in responses}
    order = sorted(responses, key=lambda r: (lengths[id(r)], r.index, r.sample))
    short, long = order[:count], order[-count:]
    return ShortLong(
        percent=percent,
        count=count,
        short=_scores(short),
        long=_scores(long),
        word_ratio=_ratio([words[id(r)] for r in long], [words[id(r)] for r in short]),
        token_ratio=_ratio([r.output_tokens for r in long], [r.output_tokens for r in short]),
    )


def _scores(responses: Sequence[Response]) -> dict[str, float]:
    means = {"accuracy": statistics.fmean(r.correct for r in responses)}
    for name in dict.fromkeys(name for r in responses for name in r.scores):
        means[name] = statistics.fmean(r.scores.get(name, 0.0) for r in responses)
    return means


def _ratio(long: Sequence[int], short: Sequence[int]) -> float | None:
    return sum(long) / sum(short) if sum(short) else None
