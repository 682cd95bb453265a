"""Which pair of runs Figure 2 compares, along which problems, and what its caption says."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rac.errors import UserError
from rac.evaluation.responses import read_responses
from rac.models import load_model, load_tokenizer, resolve_model
from rac.prompts import render
from rac.report.heatmap import draw_heatmap
from rac.report.reconstruction import Comparison, cached, checkpoint_key, compare
from rac.report.runs import Entry, Section
from rac.report.style import Image
from rac.report.tables import format_pattern, telling_pattern

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

    The errors are kept in `out/reconstruction.npz` and computed again only when the checkpoints
    or the problems have changed.
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
        comparison = _comparison(pair, out / f"reconstruction{suffix}.npz", device)
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
    found = sorted(read_responses(responses)[1], key=lambda response: response.index)[:PROBLEMS]
    if not found:
        raise UserError(f"{responses} has no responses")
    most = min(int(settings.get("max_new_tokens", MOST_ROLLOUT_TOKENS)), MOST_ROLLOUT_TOKENS)
    raw = bool(settings.get("raw_prompts", False))
    inputs = [
        {name: checkpoint_key(Path(folder)) for name, folder in checkpoints.items()},
        [response.prompt for response in found],
        [most, raw],
    ]

    def compute() -> Comparison:
        tokenizer = load_tokenizer(checkpoints["dense"])
        prompts = [render(tokenizer, response.prompt, raw) for response in found]
        logger.info("Figure 2: token errors of %s along %d problems", pair.rac.run, len(prompts))
        return compare(lambda folder: load_model(folder, device), checkpoints, prompts, most)

    return cached(cache, inputs, compute)


def caption(section: Section, pattern: str, comparison: Comparison) -> str:
    """What the heatmap shows, why at this pattern, and its means."""
    rows = len(comparison.prompt)
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
