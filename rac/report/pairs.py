"""Which pair of runs Figure 2 compares, along which problems, and what its caption says."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rac.errors import UserError
from rac.evaluation.responses import read_responses
from rac.models import load_model, load_tokenizer, resolve_model
from rac.prompts import render
from rac.report.entries import Entry
from rac.report.findings import telling_pattern
from rac.report.heatmap import draw_heatmap
from rac.report.reconstruction import Comparison
from rac.report.runs import Section
from rac.report.streaming import compare_checkpoints
from rac.report.style import Image
from rac.report.tables import format_pattern

PROBLEMS = 24
MOST_ROLLOUT_TOKENS = 2048

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """Two runs that differ in calibration alone."""

    prompt: Entry
    rac: Entry


def find_pairs(entries: Sequence[Entry]) -> list[Pair]:
    """All (prompt, rac) pairs of the same pattern and solver whose checkpoints are there."""
    usable = [e for e in entries if any((e.path / "model").glob("*.safetensors"))]
    return [
        Pair(prompt, rac)
        for prompt in usable
        for rac in usable
        if (prompt.result.calibration, rac.result.calibration) == ("prompt", "rac")
        and (prompt.result.pattern, prompt.result.solver) == (rac.result.pattern, rac.result.solver)
    ]


def figure2(section: Section, out: Path, device: str, suffix: str = "") -> Image | str:
    """Draw the heatmap of the most telling pair, or say in a sentence why there is none.

    The errors are kept in `out/reconstruction` and computed again only when the checkpoints or the
    problems have changed.
    """
    pairs = find_pairs(section.pruned)
    pattern = telling_pattern(section, [pair.rac.result.pattern for pair in pairs])
    if pattern is None:
        return (
            "It needs two runs with checkpoints, one calibrated with prompt and one with rac, "
            "of the same pattern and solver; there is no such pair among these runs."
        )
    pair = next(pair for pair in pairs if pair.rac.result.pattern == pattern)
    try:
        comparison = _comparison(pair, out / "reconstruction", device)
    except UserError as error:
        logger.warning("Figure 2 is left out: %s", error)
        return f"It is left out: {error}."
    return Image(
        f"figure2_heatmap{suffix}.png",
        draw_heatmap(comparison),
        f"Heatmap of the error ratio e(prompt) / e(rac) at {format_pattern(pattern)}",
        caption(section, pattern, comparison),
        wide=True,
    )


def _comparison(pair: Pair, cache: Path, device: str) -> Comparison:
    settings = pair.rac.result.settings
    checkpoints = {
        "dense": str(resolve_model(pair.rac.source)),
        "prompt": str(pair.prompt.path / "model"),
        "rac": str(pair.rac.path / "model"),
    }
    responses = pair.rac.path / "eval" / f"{pair.rac.result.task}.jsonl"
    rows = {r.index: r.prompt for r in read_responses(responses)[1]}
    if not rows:
        raise UserError(f"{responses} has no responses")
    most = min(int(settings.get("max_new_tokens", MOST_ROLLOUT_TOKENS)), MOST_ROLLOUT_TOKENS)
    tokenizer, raw = load_tokenizer(checkpoints["dense"]), bool(settings.get("raw_prompts", False))
    prompts = [render(tokenizer, rows[index], raw) for index in sorted(rows)[:PROBLEMS]]
    return compare_checkpoints(
        lambda folder: load_model(folder, device), checkpoints, prompts, most, cache
    )


def caption(section: Section, pattern: str, comparison: Comparison) -> str:
    """What the heatmap shows, why at this pattern, and its means."""
    rows = len(comparison.a)
    prompt, decode = comparison.mean_ratio("prompt"), comparison.mean_ratio("decode")
    return (
        f"r = e(prompt) / e(rac) at {format_pattern(pattern)} along {rows} problems and the dense "
        "model's greedy rollouts; e is the distance of the last hidden state from the dense "
        "model's. Blue: rac is closer; red: prompt is closer; grey: equal. Geometric mean "
        f"of r: {prompt:.2f} over prompt tokens, {decode:.2f} over decoded tokens. "
        + _why(section, pattern)
    )


def _why(section: Section, pattern: str) -> str:
    """Say how `telling_pattern` came to `pattern`."""
    rac = next(
        e for e in section.pruned if (e.result.pattern, e.result.calibration) == (pattern, "rac")
    )
    accuracy, dense = rac.result.accuracy, section.dense
    if dense is None:
        return f"The rac model's accuracy there is {accuracy:.3f}; no dense run was given."
    reference = f"(rac {accuracy:.3f}, dense {dense.result.accuracy:.3f})"
    if accuracy >= dense.result.accuracy / 2:
        return f"It is the sparsest pattern where rac keeps half of dense's accuracy {reference}."
    return f"Rac keeps half of dense's accuracy nowhere; it keeps the most here {reference}."
