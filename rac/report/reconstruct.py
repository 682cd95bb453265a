"""`rac reconstruct`: Figure 2 for any two checkpoints and the dense model they come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rac.errors import UserError
from rac.evaluation import Question
from rac.files import locked, write_atomic, write_json
from rac.models import load_model, load_tokenizer, resolve_model
from rac.prompts import render
from rac.report.heatmap import draw_heatmap
from rac.report.reconstruction import Comparison
from rac.report.streaming import compare_checkpoints


def reconstruct(
    dense: str,
    a: str,
    b: str,
    questions: Sequence[Question],
    out: Path,
    *,
    max_new_tokens: int = 2048,
    raw_prompts: bool = False,
    device: str = "auto",
    dtype: str = "auto",
) -> dict[str, Any]:
    """Compare checkpoints `a` and `b` with `dense`, token by token, into `out`.

    `dense`, `a` and `b` are folders or hub names. Writes `reconstruction.json` (what is returned:
    geometric means of r_t = e_t(a) / e_t(b) and mean errors, overall and a problem), and
    `heatmap.png`. The same call continues after an interruption; `out/reconstruction` keeps
    rollouts and errors for the next pair.

    Raises:
        UserError: a model cannot be loaded, a hidden size differs, or the disk is too small.
    """
    folders = {"dense": resolve_model(dense), **_named(resolve_model(a), resolve_model(b))}
    tokenizer = load_tokenizer(folders["dense"])
    prompts = [render(tokenizer, question.prompt, raw_prompts) for question in questions]
    with locked(Path(out)):
        comparison = compare_checkpoints(
            lambda folder: load_model(folder, device, dtype),
            {name: str(folder) for name, folder in folders.items()},
            prompts,
            max_new_tokens,
            Path(out) / "reconstruction",
        )
        found = summarize(comparison)
        write_json(Path(out) / "reconstruction.json", found)
        with write_atomic(Path(out) / "heatmap.png") as temporary:
            temporary.write_bytes(draw_heatmap(comparison))
    return found


def _named(a: Path, b: Path) -> dict[str, Path]:
    """Short names for two folders: their own, or those of the runs that they are the models of."""
    if a.resolve() == b.resolve():
        raise UserError(f"--a and --b are the same checkpoint, {a}")
    names = [f.resolve().parent.name if f.name == "model" else f.resolve().name for f in (a, b)]
    if names[0] == names[1] or "dense" in names:
        names = [f"{names[0]} (a)", f"{names[1]} (b)"]
    return dict(zip(names, (a, b), strict=True))


def summarize(comparison: Comparison) -> dict[str, Any]:
    """Mean errors and ratios of a comparison; "prompt" and "decode" are the phases of a sequence.

    A phase without tokens has NaN in numpy and None here.
    """
    ratios = comparison.log2_ratios()
    rows = zip(ratios, comparison.prompt_lengths, strict=True)
    return {
        "a": comparison.names[0],
        "b": comparison.names[1],
        "problems": len(ratios),
        "tokens": sum(map(len, ratios)),
        "prompt_tokens": sum(comparison.prompt_lengths),
        "ratio": {phase: _value(comparison.mean_ratio(phase)) for phase in ("prompt", "decode")},
        "mean_error": {
            name: float(np.concatenate(errors).mean())
            for name, errors in zip(comparison.names, (comparison.a, comparison.b), strict=True)
        },
        "ratio_by_problem": [
            {"prompt": _geometric(row[:n]), "decode": _geometric(row[n:])} for row, n in rows
        ],
    }


def _geometric(log2: np.ndarray) -> float | None:
    return float(2 ** log2.mean()) if log2.size else None


def _value(number: float) -> float | None:
    return None if np.isnan(number) else number
