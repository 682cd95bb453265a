"""One evaluation of one run directory, with what lies beside it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic.dataclasses import dataclass as validated

from rac.evaluation import EvalResult
from rac.evaluation.repetition import Repetition, find_repetition
from rac.evaluation.responses import Response
from rac.evaluation.stored import StoredEvaluation, read_evaluation
from rac.files import read_json
from rac.models import EMBEDDED
from rac_kernels import Pattern

CALIBRATIONS = ("text", "prompt", "rac", "off-policy")


def resolve_source(source: str) -> str:
    """Name a source model the same way however it was passed."""
    path = EMBEDDED if source == "embedded" else Path(source)
    return str(path.resolve()) if path.exists() else source


@validated(frozen=True)
class LayerRecord:
    """One pruned linear of `rac.json`; `error` is ||(W - Q) X|| / ||W X||."""

    name: str
    layer: int
    sparsity: float
    error: float | None = None


@validated(frozen=True)
class Traces:
    """The calibration's own traces: output tokens of each."""

    count: int
    lengths: tuple[int, ...]


@validated(frozen=True)
class PruneRecord:
    """What the report reads of `model/rac.json`."""

    source_model: str
    pattern: str
    calibration: str
    solver: str
    sparsity: float
    tokens: int
    seconds: dict[str, float]
    layers: tuple[LayerRecord, ...]
    traces: Traces | None = None


@dataclass(frozen=True)
class Entry:
    """One evaluation of one run directory."""

    path: Path
    run: str
    result: EvalResult
    record: PruneRecord | None

    @property
    def dense(self) -> bool:
        """Whether the evaluated model is not pruned."""
        return self.result.pattern == "dense"

    @property
    def pattern(self) -> Pattern:
        """The pattern; sparsity 0 for a dense model."""
        return Pattern(0.0) if self.dense else Pattern.parse(self.result.pattern)

    @property
    def source(self) -> str:
        """The dense model behind it, as a resolved path where it is one."""
        return resolve_source(self.result.source_model)

    @property
    def series(self) -> tuple[str, str]:
        """Calibration and solver: what a line in a figure joins."""
        return self.result.calibration, self.result.solver or ""

    @property
    def budgets(self) -> dict[int, Any]:
        """A number of decoded tokens -> accuracy and more, had generation stopped there."""
        return dict(getattr(self.result, "budgets", None) or {})

    @property
    def scores(self) -> dict[str, float]:
        """The grader's further measures."""
        return dict(getattr(self.result, "scores", None) or {})

    @cached_property
    def evaluation(self) -> StoredEvaluation | None:
        """The responses; None where only the summary was kept."""
        path = self.path / "eval" / f"{self.result.task}.jsonl"
        return read_evaluation(path) if path.is_file() else None

    @cached_property
    def repetitions(self) -> list[tuple[Response, Repetition]] | None:
        """The responses that end in a loop; None where there are no responses."""
        if self.evaluation is None:
            return None
        found = ((r, find_repetition(r.text)) for r in self.evaluation.responses)
        return [(response, loop) for response, loop in found if loop is not None]

    @cached_property
    def scope(self) -> str:
        """Which linears were pruned, from the recipe beside the weights; "" where it is not."""
        path = self._beside_weights("recipe.yaml")
        recipe = yaml.safe_load(path.read_text()) if path else None
        return str(recipe.get("scope", "")) if isinstance(recipe, dict) else ""

    @cached_property
    def fp8(self) -> bool:
        """Whether the evaluated weights are packed in fp8."""
        path = self._beside_weights("config.json")
        config = read_json(path) if path else {}
        return "fp8" in json.dumps(config.get("quantization_config", {}))

    def _beside_weights(self, name: str) -> Path | None:
        folders = (Path(self.result.model), self.path / "model")
        return next((f / name for f in folders if (f / name).is_file()), None)

    @property
    def order(self) -> tuple:
        """Dense first, then by sparsity, n:m last, calibrations in the paper's order."""
        names = (*CALIBRATIONS, self.result.calibration)
        pattern = self.pattern
        return (
            not self.dense,
            pattern.structured,
            pattern.sparsity,
            str(pattern),
            self.result.solver or "",
            names.index(self.result.calibration),
            self.run,
        )

    def row(self) -> dict[str, Any]:
        """This entry in `results.json`."""
        r = self.result
        return {
            "pattern": r.pattern,
            "calibration": r.calibration,
            "accuracy": r.accuracy,
            "stderr": r.stderr,
            "minutes": r.minutes,
            "output_tokens": r.output_tokens,
            "output_tokens_median": r.output_tokens_median,
            "output_tokens_p95": r.output_tokens_p95,
            "tokens_per_second": r.tokens_per_second,
            "limit_share": r.limit_share,
            "unfinished_share": r.unfinished_share,
            "n": r.n,
            "sparsity": r.sparsity,
            "solver": r.solver,
            "calibration_tokens": self.record.tokens if self.record else None,
            "task": r.task,
            "max_new_tokens": r.settings.get("max_new_tokens"),
            "source_model": r.source_model,
            "run": self.run,
            "repetition_share": self.repetition_share,
        }

    @property
    def repetition_share(self) -> float | None:
        """The share of responses that end in a loop; None where there are no responses."""
        if self.evaluation is None or self.repetitions is None:
            return None
        return len(self.repetitions) / len(self.evaluation.responses)
