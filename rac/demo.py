"""`rac demo`: the embedded reasoner through the whole pipeline, then the report."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rac.engines.local import TransformersEngine
from rac.evaluation import Conditions, evaluate
from rac.files import locked
from rac.models import load_model, load_tokenizer
from rac.progress import Stages
from rac.recipe import Recipe
from rac.report import write_report
from rac.run import prune

log = logging.getLogger("rac")
PATTERNS = ("0.3", "0.5", "0.6", "2:4")
CALIBRATIONS = ("text", "prompt", "rac")
MAX_NEW_TOKENS = 256  # a chain takes about 190


def demo(
    out: Path,
    *,
    patterns: Sequence[str] = PATTERNS,
    tokens: int = 40_000,
    problems: int = 200,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Prune the embedded model by every one of `patterns` and calibrations, evaluate, report.

    Each calibration collects its Hessians once, in its first run; the others reuse them. A demo
    that was interrupted continues. Returns the report's rows.
    """
    stages = Stages(quiet)
    with locked(out):
        evaluate_checkpoint(out / "dense", "embedded", problems, stages)
        runs = [out / "dense"]
        for calibration in CALIBRATIONS:
            first = _run_directory(out, calibration, patterns[0])
            for pattern in patterns:
                run = _run_directory(out, calibration, pattern)
                recipe = Recipe(
                    calibration=calibration,
                    pattern=pattern,
                    tokens=tokens,
                    max_new_tokens=MAX_NEW_TOKENS,
                    batch_size=128,
                    hessians=None if run == first else str(first),
                    keep_hessians=run == first,
                )
                log.info("%s calibration, pattern %s", calibration, pattern)
                model = prune(recipe, run, quiet=quiet or run != first)
                evaluate_checkpoint(run, str(model), problems, stages)
                runs.append(run)
        with stages.stage("report", len(runs), "runs"):
            return write_report(runs, out / "report")


def _run_directory(out: Path, calibration: str, pattern: str) -> Path:
    return out / f"{calibration}-{pattern.replace(':', 'of')}"


def evaluate_checkpoint(run: Path, model: str, problems: int, stages: Stages) -> None:
    """Evaluate a checkpoint on the embedded held-out problems into `run/eval`."""
    with stages.stage(f"evaluate {run.name}", problems, "problems") as advance:
        engine = TransformersEngine(load_model(model), load_tokenizer(model), batch_size=problems)
        conditions = Conditions(max_new_tokens=MAX_NEW_TOKENS)
        result = evaluate(
            engine, "embedded", conditions, out_dir=run, limit=problems, progress=advance
        )
    log.info("%s: accuracy %.3f ± %.3f", run.name, result.accuracy, result.stderr)


def print_rows(rows: list[dict[str, Any]], console: Console) -> None:
    """Print a report's rows as a table."""
    table = Table(title="held-out accuracy", title_justify="left")
    for name in ("pattern", "calibration", "accuracy", "minutes", "output tokens"):
        table.add_column(name, justify="left" if name in ("pattern", "calibration") else "right")
    for row in rows:
        table.add_row(
            row["pattern"],
            row["calibration"],
            f"{row['accuracy']:.3f} ± {row['stderr']:.3f}",
            f"{row['minutes']:.2f}",
            f"{row['output_tokens']:.0f}",
        )
    console.print(table)
