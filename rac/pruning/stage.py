"""The pruning stage of a run: every layer solved once, kept on disk, then the checkpoint."""

import logging
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from rac.calibration import Group, Replay, Sequence, batches
from rac.checkpoint import stored_names, write_checkpoint
from rac.errors import UserError
from rac.files import read_json, write_atomic, write_json
from rac.models import get_weight, linears, set_weight
from rac.pruning.read_ahead import read_ahead
from rac.pruning.solve import LayerResult, solve_group
from rac.pruning.writer import Writer
from rac.snapshot import load_state, save_state
from rac.traces import read_traces
from rac_kernels import Pattern

if TYPE_CHECKING:
    from rac.calibration.stage import SavedHessians
    from rac.run import Run

log = logging.getLogger("rac")


class PruningStage:
    """Solves the layers of a run; `state/layers/NNN.safetensors` marks layer NNN as finished."""

    def __init__(self, run: "Run") -> None:
        self.run, self.recipe = run, run.recipe
        self.pattern = Pattern.parse(run.recipe.pattern)
        self.folder = run.state / "layers"
        self.modules = linears(run.model)
        self.layers = sorted({group.layer for group in run.groups})
        self.stored = stored_names(run.model, run.source) or {}
        self.tokens: dict[str, int] = {}

    def _file(self, layer: int) -> Path:
        return self.folder / f"{layer:04d}.safetensors"

    def _dtype(self, name: str) -> torch.dtype:
        """The dtype in which the checkpoint stores a linear's weight."""
        default = self.run.model.config.dtype or self.run.model.dtype
        return self.run.dtypes.get(self.stored.get(name, ""), default)

    def _names(self, layers: list[int]) -> list[str]:
        """The groups of some layers, in the order in which they are solved."""
        return [group.name for layer in layers for group in self.run.groups if group.layer == layer]

    def _solve_layer(
        self, layer: int, hessians: Iterator[Tensor], writer: Writer
    ) -> dict[str, Tensor]:
        """Prune one layer's linears and have them written; returns them by name.

        `hessians` goes on with those of the layer's groups.
        """
        tensors: dict[str, Tensor] = {}
        rows: list[dict] = []
        for group in self.run.groups:
            if group.layer != layer:
                continue
            pruned, results = self._solve_group(group, next(hessians))
            for name, weight, result in zip(group.linears, pruned, results, strict=True):
                tensors[name] = weight.cpu().contiguous()
                rows.append(result.row())
        writer.submit(self._write_layer, layer, tensors, rows)
        return tensors

    def _write_layer(self, layer: int, tensors: dict[str, Tensor], rows: list[dict]) -> None:
        """Results first, then the weights, whose file says that the layer is finished."""
        write_json(self._file(layer).with_suffix(".json"), rows)
        with write_atomic(self._file(layer)) as temporary:
            save_file(tensors, temporary)

    def _solve_group(self, group: Group, hessian: Tensor) -> tuple[list[Tensor], list[LayerResult]]:
        try:
            return solve_group(
                group.linears,
                group.layer,
                [get_weight(self.modules[name]) for name in group.linears],
                hessian,
                self.pattern,
                solver=self.recipe.solver,
                damping=self.recipe.damping,
                block_size=self.recipe.block_size,
                dtype=self._dtype(group.linears[0]),
            )
        except ValueError as error:
            raise UserError(f"cannot prune {', '.join(group.linears)}: {error}") from error

    def solve_saved(self, hessians: "SavedHessians") -> None:
        """Prune from one-pass Hessians."""
        device = next(self.run.model.parameters()).device
        self.tokens = hessians.tokens
        todo = [layer for layer in self.layers if not self._file(layer).exists()]
        done = len(self.layers) - len(todo)
        stage = self.run.stages.stage("prune", len(self.layers), "layers", done)
        read = read_ahead(
            lambda name: hessians.get(name, device), self._names(todo), self.run.stages
        )
        with stage as advance, Writer(self.run.stages) as writer, closing(read):
            for layer in todo:
                self._solve_layer(layer, read, writer)
                advance(1)
        self.run.save_seconds()

    def solve_replayed(self, sequences: list[Sequence]) -> None:
        """Collect and prune layer by layer; `state/replay.pt` holds what enters the next layer."""
        replay = Replay(self.run.model, list(batches(sequences)))
        path = self.run.state / "replay.pt"
        saved = load_state(path)
        if saved:
            replay.layer, replay.hidden = saved["layer"], saved["hidden"]
        tokens = sum(len(s.ids) for s in sequences)
        prompt_tokens = sum(s.prompt_length for s in sequences)
        self.tokens = {"prompt": prompt_tokens, "decode": tokens - prompt_tokens}
        last = self.layers[-1]
        total, done = (last + 1) * tokens, replay.layer * tokens
        stage = self.run.stages.stage("replay and prune", total, "tokens", done)
        with stage as advance, Writer(self.run.stages) as writer:
            while replay.layer <= last:
                self._replay_layer(replay, advance, writer)
                if replay.layer <= last:
                    writer.wait()  # the state says that the layers below it are finished
                    save_state(path, {"layer": replay.layer, "hidden": replay.hidden})
        self.run.save_seconds()

    def _replay_layer(self, replay: Replay, advance: Any, writer: Writer) -> None:
        """One layer: Hessians, solve, and on to the next with dense or pruned weights."""
        layer = replay.layer
        groups = [group for group in self.run.groups if group.layer == layer]
        solved = not groups or self._file(layer).exists()
        pruned = self.recipe.propagate == "pruned" and bool(groups)
        weights = self._load(layer) if pruned and solved else {}
        if not solved:
            collector = replay.collect(groups, advance)
            hessians = map(collector.hessian, self._names([layer]))
            weights = self._solve_layer(layer, hessians, writer)
        if pruned:
            for name, weight in weights.items():
                set_weight(self.modules[name], weight.to(self.run.model.dtype))
        if layer < self.layers[-1]:
            replay.advance(rerun=pruned or solved)
        else:
            replay.layer += 1

    def _load(self, layer: int) -> dict[str, Tensor]:
        with safe_open(self._file(layer), "pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118

    def write_checkpoint(self) -> None:
        """Put the pruned layers into a copy of the source checkpoint, the record beside it."""
        rows = [
            row
            for layer in self.layers
            for row in read_json(self._file(layer).with_suffix(".json"))
        ]
        files = {row["name"]: self._file(row["layer"]) for row in rows}
        transposed = {name for name in files if isinstance(self.modules[name], Conv1D)}
        recipe = yaml.safe_dump(self.recipe.model_dump(), sort_keys=False)
        with self.run.stages.stage("write checkpoint", len(files), "tensors"):
            extra = {"rac.json": self._record(rows), "recipe.yaml": recipe}
            write_checkpoint(
                self.run.model_folder, self.run.source, self.run.model, files, transposed, extra
            )

    def _record(self, rows: list[dict]) -> dict[str, Any]:
        """What `rac.json` says about the run."""
        weights = sum(row["shape"][0] * row["shape"][1] for row in rows)
        zeros = sum(row["sparsity"] * row["shape"][0] * row["shape"][1] for row in rows)
        recipe = self.recipe
        tokens = self.tokens
        return {
            "rac_version": _version(),
            "source_model": recipe.model,
            "pattern": recipe.pattern,
            "solver": recipe.solver,
            "calibration": recipe.calibration,
            "collector": self.run.plan.collector if self.run.plan else None,
            "propagate": recipe.propagate,
            "tokens": sum(tokens.values()),
            "prompt_tokens": tokens.get("prompt", 0),
            "decode_tokens": tokens.get("decode", 0),
            "seconds": {k: round(v, 3) for k, v in self.run.stages.seconds.items()},
            "peak_memory_bytes": self.run.peak_memory,
            "traces": self._trace_summary(),
            "sparsity": zeros / weights,
            "error": fmean(row["error"] for row in rows),
            "layers": rows,
        }

    def _trace_summary(self) -> dict[str, Any] | None:
        folder = Path(self.recipe.hessians) if self.recipe.hessians else self.run.out
        path = folder / "traces.parquet"
        if not path.is_file():
            return None
        traces = read_traces(path)
        reasons = [trace.finish_reason for trace in traces]
        return {
            "count": len(traces),
            "lengths": [len(trace.output_ids) for trace in traces],
            "finish": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
        }


def _version() -> str:
    try:
        return version("rac-prune")
    except PackageNotFoundError:
        return "unknown"
