"""The pattern to look at, and the sentence at the top of the page."""

from collections.abc import Sequence

from rac.report.entries import Entry
from rac.report.runs import Section
from rac.report.tables import format_minutes, format_pattern


def telling_pattern(section: Section, patterns: Sequence[str] | None = None) -> str | None:
    """The pattern to look at: the sparsest at which `rac` still has half of dense's accuracy.

    Among equally sparse ones the hardest (lowest `rac` accuracy); when `rac` is below half
    everywhere, the pattern where it is most accurate. None when nothing was pruned with `rac`.
    Only `patterns` are looked at when given. Without a dense run, half of the best accuracy.
    """
    candidates = [
        e
        for e in section.pruned
        if e.result.calibration == "rac" and (patterns is None or e.result.pattern in patterns)
    ]
    if not candidates:
        return None
    reference = section.dense or max(section.entries, key=lambda e: e.result.accuracy)
    good = [e for e in candidates if e.result.accuracy >= reference.result.accuracy / 2]
    if not good:
        return max(candidates, key=lambda e: e.result.accuracy).result.pattern
    return max(good, key=lambda e: (e.pattern.sparsity, -e.result.accuracy)).result.pattern


def summary(section: Section) -> str:
    """Say in a sentence or two what was found, from the numbers alone."""
    n = section.entries[0].result.n
    pattern = telling_pattern(section)
    if pattern is None:
        listed = "; ".join(f"{_name(e)} {_percent(e)}" for e in section.entries)
        return f"Share of {n} problems answered correctly: {listed}."
    entries = [e for e in section.pruned if e.result.pattern == pattern]
    main = next(e for e in entries if e.result.calibration == "rac")
    others = [e for e in (section.dense, *entries) if e is not None and e is not main]
    sentence = (
        f"At {format_pattern(pattern)} sparsity, calibrated on its own chains of thought (rac), "
        f"the model answers {_percent(main)} of {n} problems correctly"
    )
    time = f"The evaluation takes {format_minutes(main.result.minutes)} minutes"
    if not others:
        return f"{sentence}. {time}."
    sentence += ", against " + _listed([f"{_percent(e)} {_short(e)}" for e in others])
    times = _listed([f"{format_minutes(e.result.minutes)} {_short(e)}" for e in others])
    return f"{sentence}. {time}, against {times}."


def _listed(parts: Sequence[str]) -> str:
    """Join as prose does: "a, b and c"."""
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


def _percent(entry: Entry) -> str:
    return f"{100 * entry.result.accuracy:.1f}% (± {100 * entry.result.stderr:.1f})"


def _short(entry: Entry) -> str:
    return "dense" if entry.dense else f"with {entry.result.calibration}"


def _name(entry: Entry) -> str:
    if entry.dense:
        return "dense"
    return f"{format_pattern(entry.result.pattern)} {entry.result.calibration}"
