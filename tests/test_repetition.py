"""The repetition detector: hand cases, precision and recall on generated texts, linear time."""

import random
import time

import pytest

from rac.evaluation.repetition import find_repetition

SUBJECTS = [
    "the train",
    "the first box",
    "this equation",
    "the second premise",
    "Anna",
    "the remainder",
]
VERBS = [
    "must be larger than",
    "equals",
    "does not contradict",
    "comes before",
    "is half of",
    "depends on",
]
OBJECTS = ["the sum of both", "the other one", "what we found above", "the last term"]
OPENERS = ("Wait, let me check", "So", "Hmm,", "Therefore", "Let me verify that", "Okay, so")


def sentence(rng):
    parts = rng.choice(OPENERS), rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(OBJECTS)
    return " ".join(parts) + rng.choice((".", "?", f", that is {rng.randrange(900)}."))


def honest(rng, sentences):
    """A chain that goes on, with phrases that recur and steps that are numbered."""
    lines = []
    for step in range(sentences):
        line = sentence(rng)
        if rng.random() < 0.2:
            a, b = rng.randrange(100), rng.randrange(100)
            line += f" Step {step}: {a} + {b} = {a + b}."
        lines.append(line + " Wait, let me check." * (rng.random() < 0.2))
    return " ".join(lines)


def loop(rng):
    """A collapsed text: an honest beginning, then a sentence or a chunk until the limit."""
    text = honest(rng, rng.randrange(0, 60)) + " "
    kind = rng.choice(
        ("sentence", "sentence", "chunk", "chunk", "counter", "counted chunk", "word")
    )
    size = {"sentence": 1, "counter": 1, "word": 0}.get(kind, rng.randrange(2, 7))
    unit = [sentence(rng) for _ in range(size)] or [rng.choice(("and", "the answer is", "0"))]
    repeats = rng.choice((5, 12, 40, 100)) + (4 if "count" in kind else 0)
    repeats = max(repeats, 250 // len(" ".join(unit)) + 2)
    gap = rng.choice((" ", "\n", "\n\n"))
    first, step, name = rng.randrange(30), rng.choice((1, 1, 2)), rng.choice(("Step", "Attempt"))
    counters = [f"{name} {first + step * i}: " if "count" in kind else "" for i in range(repeats)]
    parts = [counter + gap.join(unit) for counter in counters]
    looped = gap.join(parts)
    return text + looped[: len(looped) - rng.randrange(len(parts[-1]))]  # cut by the token limit


def table(rng):
    rows = ["| item | price | count |", "|---|---|---|"]
    for _ in range(rng.randrange(8, 80)):
        rows.append(f"| item {rng.randrange(50)} | {rng.randrange(900)} | {rng.randrange(9)} |")
    return "\n".join(rows)


def numbers(rng):
    start, step = rng.randrange(50), rng.choice((1, 2, 7))
    gap = rng.choice((", ", "\n", " "))
    values = range(start, start + step * rng.randrange(20, 400), step)
    return "The numbers are " + gap.join(map(str, values))


def code(rng):
    names = [rng.choice("abcdefgh") + str(i) for i in range(rng.randrange(8, 60))]
    lines = [f"    {n} = compute_{n}({rng.randrange(90)}, {rng.choice(names)})" for n in names]
    return "def solve():\n" + "\n".join(lines) + f"\n    return {names[-1]}"


def verification(rng):
    """The same sum checked again and again, with other thoughts between."""
    a, b = rng.randrange(100), rng.randrange(100)
    check = f"Let me check again: {a} + {b} = {a + b}. Yes, that is right."
    return " ".join(f"{check} {sentence(rng)}" for _ in range(rng.randrange(3, 25))) + f" {check}"


def multiplication(rng):
    factor = rng.randrange(2, 20)
    form = rng.choice(
        ("{0} x {1} = {2}\n", "{0} times {1} is {2}, ", "The product {1}*{0} is {2}. ")
    )
    rows = [form.format(factor, i, factor * i) for i in range(1, rng.randrange(10, 60))]
    return "".join(rows)


def search(rng):
    """An enumeration that computes something new in every line."""
    a, b = rng.randrange(2, 9), rng.randrange(99)
    lines = [f"Try x = {x}: {a}x^2 + {b} = {a * x * x + b}, not a square." for x in range(1, 40)]
    return "\n".join(lines)


def addition(rng):
    a = rng.randrange(2, 50)
    form = rng.choice(
        ("{0} + {1} = {2}, ", "The sum of {1} and {0} is {2}. ", "{1} plus {0}: {2}\n")
    )
    return "".join(form.format(a, i, a + i) for i in range(1, rng.randrange(6, 20)))


def cases(rng):
    """An enumeration of a few cases in the same words."""
    return "\n".join(f"Case {i}: the premise holds, so we go on." for i in range(1, 7))


def decimals(rng):
    return f"{honest(rng, 10)} 1 divided by 3 is 0.{'3' * rng.randrange(10, 60)}"


NEGATIVES = (
    *(table, numbers, code, verification, multiplication, addition, search, cases, decimals),
    lambda rng: honest(rng, rng.randrange(10, 120)),
)


def not_a_loop(rng, kind):
    text = honest(rng, rng.randrange(0, 30)) + "\n" + NEGATIVES[kind % len(NEGATIVES)](rng)
    return text[: len(text) - rng.randrange(20)] if rng.random() < 0.5 else text


def test_precision_and_recall():
    rng = random.Random(0)
    loops = [find_repetition(loop(rng)) is not None for _ in range(400)]
    others = [find_repetition(not_a_loop(rng, kind)) is not None for kind in range(400)]
    found, false = sum(loops), sum(others)
    precision, recall = found / (found + false), found / len(loops)
    print(f"precision {precision:.3f} ({false} false of {found + false}), recall {recall:.3f}")
    assert precision >= 0.95 and recall >= 0.95
    assert f"precision {precision:.3f}," in " ".join(find_repetition.__doc__.split())
    assert f"recall {recall:.3f}." in " ".join(find_repetition.__doc__.split())


def test_what_is_found_by_hand():
    before = "We begin with something else. "
    unit = "So the box is red, or is it not red? "
    found = find_repetition(before + 6 * unit + unit[:10])
    assert found.start in range(len(before) - 2, len(before) + 1)  # "." and " " may belong to both
    assert len(found.period) == len(unit) and sorted(found.period) == sorted(unit)
    length = len((before + 6 * unit + unit[:10]).rstrip())
    assert found.repeats == pytest.approx((length - found.start) / len(unit))
    assert found.share == pytest.approx(1 - found.start / length)


def test_counters_and_line_ends_by_hand():
    lines = [f"Attempt {i}: I will try again from here." for i in range(95, 112)]
    found = find_repetition("Begin.\n" + "\n".join(lines))
    assert 16.5 < found.repeats <= 17.5 and "I will try again from here" in found.period
    assert find_repetition(" \n".join(["It is what it is, they say."] * 7)).repeats > 6
    assert find_repetition("\n".join(f"Row {i}: {i * i} in all of it" for i in range(30))) is None
    assert find_repetition("\n".join(lines[:7])) is None  # too few to be sure


def test_how_many_repeats_make_a_loop():
    unit = "Let me check that once more, since the second box is heavier. "
    assert find_repetition("First. " + 3 * unit) is None and 3 * len(unit) > 180
    assert find_repetition("First. " + 4 * unit).repeats == pytest.approx(4, abs=0.05)


@pytest.mark.parametrize("text", ["", " ", "a", "no loop here", "0" * 100, "\n" * 500])
def test_short_and_empty_texts(text):
    assert find_repetition(text) is None


def test_one_character_for_ever():
    assert find_repetition("Well: " + "0" * 500).period == "0"


def test_chinese_loop():
    assert find_repetition("好" + "我们再检查一遍这个答案。" * 20).repeats >= 20


def test_time_grows_with_the_length_alone():
    """Four times the text, about four times the time, where its end did occur before."""
    rng = random.Random(1)
    tail = honest(rng, 5)
    base = " ".join(sentence(rng) for _ in range(300)) + "a" * 9_000
    seconds = []
    for copies in (1, 4):
        text = tail + base * copies + tail
        start = time.perf_counter()
        assert find_repetition(text) is None
        seconds.append(time.perf_counter() - start)
    assert len(text) > 90_000 and seconds[1] < 2.0 and seconds[1] < 16 * seconds[0] + 0.2
