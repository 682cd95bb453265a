"""Generic English prose from a small grammar: the "C4" of the embedded reasoner.

It has no arithmetic and no chains of thought; `calibration="text"` reads it.
"""

import random
from collections.abc import Iterator

ADJECTIVES = (
    "old", "quiet", "narrow", "bright", "gentle", "heavy", "early", "distant", "careful", "curious",
    "famous", "green", "hollow", "honest", "modern", "patient", "proud", "simple", "steady", "warm",
)  # fmt: skip
NOUNS = (
    "river", "teacher", "garden", "engine", "village", "letter", "market", "doctor", "bridge",
    "painter", "forest", "kitchen", "window", "sailor", "winter", "station", "library", "farmer",
    "mountain", "picture", "museum", "singer", "harbour", "journal", "council", "machine",
)  # fmt: skip
VERBS = (
    "watches", "repairs", "remembers", "follows", "describes", "protects", "changes", "visits",
    "measures", "carries", "explains", "surrounds", "admires", "replaces", "discovers", "supports",
)  # fmt: skip
ADVERBS = ("slowly", "often", "rarely", "quickly", "almost never", "always", "sometimes", "again")
PLACES = (
    "near the sea", "in the north", "behind the church", "at the end of the road", "by the lake",
    "across the valley", "in a small town", "under the old roof", "on the other side",
)  # fmt: skip
OPENINGS = (
    "However,", "In the end,", "Most people say that", "Later that year,", "For a long time,",
    "It is known that", "According to the report,", "As everyone expected,", "Without a doubt,",
)  # fmt: skip
CLAUSES = (
    "because it was built with care", "although nobody asked for it", "while the rain falls",
    "when the days grow short", "since the work is never done", "if there is enough light",
    "unless the weather turns", "so that others may learn from it", "before the summer ends",
)  # fmt: skip


def _noun_phrase(rng: random.Random) -> str:
    article = rng.choice(("the", "a", "every", "this", "that", "one", "no"))
    if rng.random() < 0.6:
        adjective = rng.choice(ADJECTIVES)
        article = "an" if article == "a" and adjective[0] in "aeiou" else article
        return f"{article} {adjective} {rng.choice(NOUNS)}"
    noun = rng.choice(NOUNS)
    return f"{'an' if article == 'a' and noun[0] in 'aeiou' else article} {noun}"


def _sentence(rng: random.Random) -> str:
    words = [_noun_phrase(rng)]
    if rng.random() < 0.4:
        words.append(rng.choice(ADVERBS))
    words += [rng.choice(VERBS), _noun_phrase(rng)]
    if rng.random() < 0.5:
        words.append(rng.choice(PLACES))
    if rng.random() < 0.15:
        words.append(f"in {rng.randint(1650, 2020)}")
    if rng.random() < 0.4:
        words.append(rng.choice(CLAUSES))
    text = " ".join(words)
    if rng.random() < 0.3:
        text = f"{rng.choice(OPENINGS)} {text}"
    return text[0].upper() + text[1:] + rng.choice("....!?")


def generate_text(split: str, seed: int = 0, min_characters: int = 240) -> Iterator[str]:
    """An endless stream of paragraphs of at least `min_characters` characters."""
    rng = random.Random(f"text:{split}:{seed}")
    while True:
        sentences: list[str] = []
        while sum(map(len, sentences)) < min_characters:
            sentences.append(_sentence(rng))
        yield " ".join(sentences)
