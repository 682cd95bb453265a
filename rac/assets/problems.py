"""Two-step word problems with digit-by-digit chains of thought, generated from a seed.

A problem asks for `a * b`, then adds or subtracts `c`: `a`, `b` have two digits, `c` up to three.
Its chain writes every column as `x op y carry = tens units`, so that each character follows from
a few earlier ones and a small transformer can learn to compute the answer only by writing it down.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SPLITS = {"train": range(2, 16), "calibration": range(1, 2), "heldout": range(0, 1)}
SPLIT_MODULUS = 16

NAMES = (
    "Nora", "Ben", "Mia", "Omar", "Lena", "Igor", "Ruth", "Paul", "Anna", "Luis", "Tess", "Hugo",
    "Vera", "Kofi", "Jane", "Emil", "Rosa", "Finn", "Zoe", "Amir",
)  # fmt: skip
THINGS = (
    "apples", "marbles", "pens", "books", "stamps", "shells", "coins", "cards", "eggs", "bolts",
    "seeds", "beads", "tiles", "candles", "plates", "lemons", "bricks", "tickets", "nails",
    "buttons",
)  # fmt: skip
HOLDERS = (
    "boxes", "bags", "crates", "jars", "baskets", "trays", "shelves", "drawers", "packs", "rows",
)  # fmt: skip

ADD_TEMPLATES = (
    "{n} packs {a} {h} with {b} {t} in each. Then {c} more {t} arrive. How many {t} are there?",
    "There are {a} {h} of {b} {t}. {n} brings {c} more {t}. How many {t} are there in all?",
    "{n} already has {c} {t} and buys {a} {h} of {b} {t}. How many {t} does {n} have now?",
    "A shop fills {a} {h}, each with {b} {t}, and keeps {c} loose {t}. Count all the {t}.",
    "{n} counts {b} {t} in each of {a} {h} and finds {c} {t} on the floor. What is the total?",
)
SUBTRACT_TEMPLATES = (
    "{n} packs {a} {h} with {b} {t} in each. Then {c} {t} are sold. How many {t} are left?",
    "There are {a} {h} of {b} {t}. {n} takes away {c} {t}. How many {t} remain?",
    "{n} owes {c} {t} and owns {a} {h} of {b} {t}. How many {t} are left after paying?",
    "A shop fills {a} {h}, each with {b} {t}, but {c} {t} break. Count the {t} that are whole.",
    "{n} needs {b} {t} in each of {a} {h} and has {c} {t} so far. How many {t} are missing?",
)


@dataclass(frozen=True)
class Problem:
    """One problem: `prompt` and `chain` are text, `answer` is the integer as text."""

    prompt: str
    chain: str
    answer: str

    @property
    def response(self) -> str:
        """What the reasoner is trained to write after the chat template's `<think>`."""
        return f"{self.chain}</think>\n\\boxed{{{self.answer}}}"


def _digits(value: int, width: int) -> list[int]:
    """Digits of `value`, least significant first, padded with zeros to `width`."""
    return [value // 10**place % 10 for place in range(width)]


def _product_row(a: int, digit: int) -> str:
    """The columns of `a * digit` for a two-digit `a`."""
    carry, columns = 0, []
    for x in _digits(a, 2):
        total = x * digit + carry
        columns.append(f"{x}*{digit}+{carry}={total:02d}")
        carry = total // 10
    return ", ".join(columns)


def _column_row(x: int, op: str, y: int, width: int) -> str:
    """The columns of `x + y` or `x - y`; each ends in carry (or borrow) and digit."""
    sign = 1 if op == "+" else -1
    carry, columns = 0, []
    for p, q in zip(_digits(x, width), _digits(y, width), strict=True):
        total = p + sign * (q + carry)
        carry_in, carry = carry, int(not 0 <= total <= 9)
        columns.append(f"{p}{op}{q}{op}{carry_in}={carry}{total % 10}")
    return ", ".join(columns)


def chain_of_thought(a: int, b: int, op: str, c: int) -> str:
    """The digit-by-digit chain for `a * b op c`."""
    low, high = a * (b % 10), a * (b // 10) * 10
    product = a * b
    result = product + c if op == "+" else product - c
    return (
        f"{a}*{b}\n"
        f"{_product_row(a, b % 10)} is {low:04d}\n"
        f"{_product_row(a, b // 10)} is {high:04d}\n"
        f"{_column_row(low, '+', high, 4)} is {product:04d}\n"
        f"{product:04d}{op}{c:04d}\n"
        f"{_column_row(product, op, c, 4)} is {result:04d}\n"
    )


def split_of(a: int, b: int, op: str, c: int) -> str:
    """Which split the arithmetic of a problem belongs to, whatever its wording."""
    bucket = zlib.crc32(f"{a}*{b}{op}{c}".encode()) % SPLIT_MODULUS
    return next(name for name, buckets in SPLITS.items() if bucket in buckets)


def generate_problems(split: str, seed: int = 0) -> Iterator[Problem]:
    """An endless stream of problems of one split: "train", "calibration" or "heldout".

    The splits share no arithmetic, so a held-out problem cannot occur in training or calibration.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {sorted(SPLITS)}, got {split!r}")
    rng = random.Random(f"{split}:{seed}")
    while True:
        a, b = rng.randint(12, 99), rng.randint(12, 99)
        op = rng.choice("+-")
        c = rng.randint(1, 999 if op == "+" else min(999, a * b - 1))
        if split_of(a, b, op, c) != split:
            continue
        template = rng.choice(ADD_TEMPLATES if op == "+" else SUBTRACT_TEMPLATES)
        words = {"n": rng.choice(NAMES), "t": rng.choice(THINGS), "h": rng.choice(HOLDERS)}
        prompt = template.format(a=a, b=b, c=c, **words)
        answer = a * b + c if op == "+" else a * b - c
        yield Problem(prompt, chain_of_thought(a, b, op, c), str(answer))
