"""A run: recipe in, pruned checkpoint out, in one directory that can be continued at any moment."""

import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from rac.calibration import HessianCollector, Sequence
from rac.calibration.stage import (
    SavedHessians,
    decode_traces,
    known_sequences,
    pass_over,
    read_trace_file,
    reused_hessians,
    save_hessians,
)
from rac.checkpoint import weight_dtypes
from rac.engines import Trace
from rac.engines.inputs import context_length
from rac.errors import UserError
from rac.files import locked, read_json, require_disk, write_json
from rac.models import check_weights, load_model, load_tokenizer, resolve_model
from rac.packed.registration import is_packed
from rac.plan import Plan, make_plan, peak_memory
from rac.progress import Stages
from rac.pruning.stage import PruningStage
from rac.recipe import Recipe, write_recipe
from rac.run_checks import check_directory, check_inputs, check_pattern, chosen_groups
from rac.traces import read_traces, traces_complete
from rac_kernels import Pattern

log = logging.getLogger("rac")
SNAPSHOT_SECONDS = 60.0


def prune(
    recipe: Recipe,
    out: Path | str,
    *,
    quiet: bool = False,
    snapshot_seconds: float = SNAPSHOT_SECONDS,
) -> Path:
    """Prune a model as `recipe` says; returns the checkpoint's folder, `out/model`.

    The same call continues an interrupted run and gives bit-identical weights.

    Raises:
        UserError: bad input, a full disk, too little memory, or a directory in use; what is on
            disk stays as it was.
    """
    out = Path(out)
    with locked(out):
        run = Run(recipe, out, quiet, snapshot_seconds)
        if not run.finished:
            run.start()
            run.calibrate_and_solve()
        run.clean_up()
        return run.model_folder


def trace(
    recipe: Recipe,
    out: Path | str,
    *,
    quiet: bool = False,
    snapshot_seconds: float = SNAPSHOT_SECONDS,
) -> Path:
    """Write the model's own traces alone, `recipe.tokens` of them; returns `out/traces.parquet`.

    Raises:
        UserError: as `prune`, or a calibration without traces of the model's own.
    """
    if recipe.calibration != "rac" or recipe.hessians:
        raise UserError("rac trace writes the model's own traces: use --calibration rac")
    out = Path(out)
    with locked(out):
        run = Run(recipe, out, quiet, snapshot_seconds)
        if not traces_complete(run.traces_file):
            run.load()
            run.remember()
            run.decode(run.model, None)
        run.drop_decoding_state()
        return run.traces_file


class Run:
    """The state of one run while it is worked on."""

    def __init__(self, recipe: Recipe, out: Path, quiet: bool, snapshot_seconds: float) -> None:
        self.recipe, self.out, self.quiet = recipe, out, quiet
        self.snapshot_seconds = snapshot_seconds
        self.state, self.model_folder = out / "state", out / "model"
        self.traces_file = out / "traces.parquet"
        self.stages = Stages(quiet)
        recipe.check()
        self.source = resolve_model(recipe.model)
        self.plan: Plan | None = None
        check_directory(recipe, out, self.model_folder)

    @property
    def finished(self) -> bool:
        """The checkpoint is already there."""
        done = (self.model_folder / "rac.json").is_file()
        if done:
            log.info("%s is already finished", self.model_folder)
        return done

    def load(self) -> None:
        """Load tokenizer, model and prompts."""
        if is_packed(self.source):
            raise UserError(f"{self.source} is packed; prune the model that it was packed from")
        self.tokenizer = load_tokenizer(self.source)
        self.model = load_model(self.source, self.recipe.device, self.recipe.dtype)
        check_weights(self.model)
        self.prompts = check_inputs(self.recipe, self.model, self.tokenizer)

    def remember(self) -> None:
        """From here on the directory belongs to this recipe."""
        write_recipe(self.out / "recipe.yaml", self.recipe)
        seconds = self.state / "seconds.json"
        self.stages.seconds = read_json(seconds) if seconds.is_file() else {}

    def start(self) -> None:
        """Everything that can be refused is refused here, before long work."""
        self.load()
        recipe = self.recipe
        self.groups = chosen_groups(recipe, self.model)
        check_pattern(Pattern.parse(recipe.pattern), self.groups, recipe.block_size)
        if recipe.hessians:
            reused_hessians(recipe).require(group.name for group in self.groups)
        self.dtypes = weight_dtypes(self.source, self.model.dtype)
        longest = max(map(len, self.prompts), default=0)
        self.plan = make_plan(self.model, self.groups, recipe, longest)
        require_disk(self.out, sum(self.plan.disk.values()))
        if not self.quiet:
            self.plan.print(recipe, self.groups, Console(stderr=True))
        self.remember()

    def decode(self, model: Any, collector: HessianCollector | None) -> list[Trace]:
        """Decode traces with `model`, or read them where an earlier start finished them."""
        return decode_traces(
            model,
            self.prompts,
            self.recipe,
            self.tokenizer,
            self.out,
            self.stages.stage,
            self.snapshot_seconds,
            collector,
        )

    def drop_decoding_state(self) -> None:
        """Delete the snapshot of decoding without a collector, once all traces are there."""
        (self.state / "traces.pt").unlink(missing_ok=True)
        self._remove_empty_state()

    def _traces(self) -> list[Trace] | None:
        """The traces of a calibration that replays them; decodes them first where needed."""
        recipe = self.recipe
        if recipe.calibration in ("text", "prompt"):
            return None
        if recipe.traces:
            return read_trace_file(recipe, self.tokenizer)
        if traces_complete(self.traces_file):
            return read_traces(self.traces_file, self.tokenizer)
        model = self.model
        if recipe.calibration == "off-policy":
            model = load_model(recipe.trace_model, recipe.device, recipe.dtype)
        traces = self.decode(model, None)
        self.drop_decoding_state()
        return traces

    def calibrate_and_solve(self) -> None:
        """Hessians, sparse weights, checkpoint."""
        assert self.plan is not None
        solving = PruningStage(self)
        if self.plan.collector == "decode":
            solving.solve_saved(self._hessians())
        else:
            sequences = self._sequences()
            self.save_seconds()
            solving.solve_replayed(sequences)
        self.peak_memory = peak_memory(self.model)
        solving.write_checkpoint()

    def _sequences(self) -> list[Sequence]:
        context = context_length(self.model)
        return known_sequences(self.recipe, context, self.prompts, self._traces())

    def _hessians(self) -> SavedHessians:
        """The one-pass Hessians: reused, finished earlier, or collected now."""
        recipe = self.recipe
        if recipe.hessians:
            return reused_hessians(recipe)
        path = self.state / "hessians.safetensors"
        if not path.exists():
            collector = HessianCollector(self.model, self.groups)
            if recipe.calibration == "rac":
                with collector.attached():
                    self.decode(self.model, collector)
                collector.finish()
            else:
                pass_over(
                    self.model,
                    self._sequences(),
                    collector,
                    self.out,
                    self.stages.stage,
                    self.snapshot_seconds,
                )
            self.save_seconds()
            with self.stages.stage("write Hessians", len(self.groups), "Hessians"):
                save_hessians(path, collector)
            self.save_seconds()
            for name in ("decode.pt", "pass.pt"):
                (self.state / name).unlink(missing_ok=True)
        return SavedHessians(path)

    def save_seconds(self) -> None:
        """Remember the seconds of the stages done so far."""
        write_json(self.state / "seconds.json", self.stages.seconds)

    def clean_up(self) -> None:
        """Delete the state of a finished run, but for Hessians that are to be kept."""
        for path in list(self.state.glob("*")):
            if self.recipe.keep_hessians and path.name == "hessians.safetensors":
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._remove_empty_state()

    def _remove_empty_state(self) -> None:
        with suppress(OSError):
            self.state.rmdir()
