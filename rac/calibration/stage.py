"""The calibration stage of a run: traces and, in decode mode, all Hessians, resumable."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from rac.calibration.capture import HessianCollector
from rac.calibration.replay import observe_batch, run_model
from rac.calibration.sequences import Sequence, batches, cut_to_budget, from_traces
from rac.engines import Generation, Sampling, Trace
from rac.errors import UserError
from rac.files import write_atomic
from rac.prompts import load_prompts, load_text
from rac.recipe import CALIBRATION_FIELDS, Recipe, make_recipe, read_recipe
from rac.snapshot import Snapshots
from rac.traces import read_traces, write_traces
from rac_kernels import PackedTriangle

log = logging.getLogger("rac")


def load_prompt_ids(recipe: Recipe, tokenizer: Any, context: int) -> list[list[int]]:
    """Token ids of the text, or of the problems that leave room for a decoded token."""
    if recipe.calibration == "text":
        return load_text(
            recipe.prompts,
            tokenizer,
            column=recipe.prompt_column,
            max_tokens=recipe.tokens,
            context=context,
        )
    loaded = load_prompts(
        recipe.prompts,
        tokenizer,
        column=recipe.prompt_column,
        raw=recipe.raw_prompts,
        max_tokens=recipe.tokens,
        context=context,
    )
    ids = [prompt.ids for prompt in loaded if 0 < len(prompt.ids) < context]
    if not ids:
        raise UserError(
            f"every prompt of {recipe.prompts} is longer than the model's context of {context}"
        )
    if len(ids) < len(loaded):
        log.warning("left out %d prompts longer than the context", len(loaded) - len(ids))
    return ids


def decode_traces(
    model: PreTrainedModel,
    prompts: list[list[int]],
    recipe: Recipe,
    tokenizer: Any,
    directory: Path,
    stage: Any,
    snapshot_seconds: float,
    collector: HessianCollector | None = None,
) -> list[Trace]:
    """Decode until the token budget is spent; `collector` sees every token on its way.

    `directory/traces.parquet` grows with every snapshot and is complete at the end.
    """
    sampling = Sampling(recipe.max_new_tokens, recipe.temperature, recipe.top_p, recipe.seed)
    generation = Generation(
        model,
        prompts,
        sampling,
        batch_size=recipe.batch_size,
        observer=collector,
        token_budget=recipe.tokens,
    )
    parts: dict[str, Any] = {"generation": generation}
    if collector is not None:
        parts["collector"] = collector
    snapshot = directory / "state" / ("decode.pt" if collector is not None else "traces.pt")
    snapshots = Snapshots(snapshot, snapshot_seconds, **parts)
    saved = snapshots.restore()
    traces = [Trace(*row) for row in saved["traces"]] if saved else []
    path = directory / "traces.parquet"
    before = generation.remaining or 0
    with stage("decode traces", recipe.tokens, done=recipe.tokens - before) as advance:
        while not generation.done:
            traces += generation.step()
            advance(before - (generation.remaining or 0))
            before = generation.remaining or 0
            if snapshots.ready:
                rows = [[t.index, t.prompt_ids, t.output_ids, t.finish_reason] for t in traces]
                snapshots.take(traces=rows)
                write_traces(path, traces, tokenizer, model=recipe.model, complete="no")
    write_traces(path, traces, tokenizer, model=recipe.model, complete="yes")
    return traces


def known_sequences(
    recipe: Recipe, context: int, prompts: list[list[int]], traces: list[Trace] | None
) -> list[Sequence]:
    """The sequences of a calibration whose tokens are all known before the pass over them."""
    if traces is not None:
        sequences = from_traces(sorted(traces, key=lambda trace: trace.index))
    else:
        sequences = [Sequence(ids, len(ids)) for ids in prompts]
    kept = cut_to_budget(sequences, recipe.tokens, context)
    tokens = sum(len(s.ids) for s in kept)
    if tokens < recipe.tokens:
        log.warning("the calibration data hold %d tokens, fewer than the budget", tokens)
    return kept


def pass_over(
    model: PreTrainedModel,
    sequences: list[Sequence],
    collector: HessianCollector,
    directory: Path,
    stage: Any,
    snapshot_seconds: float,
) -> None:
    """One teacher-forced pass over known sequences, all Hessians at once."""
    todo = list(batches(sequences))
    snapshots = Snapshots(directory / "state" / "pass.pt", snapshot_seconds, collector=collector)
    saved = snapshots.restore()
    start = saved["batch"] if saved else 0
    done = sum(int(batch.real.sum()) for batch in todo[:start])
    total = sum(len(s.ids) for s in sequences)
    with stage("collect", total, done=done) as advance, collector.attached():
        with torch.inference_mode():
            for number, batch in enumerate(todo[start:], start + 1):
                observe_batch(collector, batch)
                run_model(model, batch)
                advance(int(batch.real.sum()))
                if snapshots.ready:
                    snapshots.take(batch=number)
        collector.finish()


def save_hessians(path: Path, collector: HessianCollector) -> None:
    """Write every Hessian, a packed triangle, and the counts into one safetensors file."""
    sizes = {name: hessian.features for name, hessian in collector.hessians.items()}
    counts = {"tokens": collector.tokens, "in_features": sizes}
    metadata = {"rac": json.dumps(counts)}  # one key: safetensors shuffles several
    tensors = {name: hessian.data.cpu() for name, hessian in collector.hessians.items()}
    with write_atomic(path) as temporary:
        save_file(tensors, temporary, metadata)


class SavedHessians:
    """The Hessians of `save_hessians`, read one at a time."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where the file is missing or damaged."""
        try:
            self.file = safe_open(path, "pt")
            counts = json.loads(self.file.metadata()["rac"])
            self.tokens: dict[str, int] = counts["tokens"]
            self.in_features: dict[str, int] = counts["in_features"]
        except Exception as error:
            raise UserError(f"cannot read the Hessians in {path}: {error}") from error

    def require(self, names: Iterable[str]) -> None:
        """Refuse a file without the Hessians called `names`.

        Raises:
            UserError: names the first that is missing.
        """
        for name in names:
            if name not in self.file.keys():  # noqa: SIM118 - not a dict
                raise UserError(
                    f"the reused Hessians have none for {name}: use a run with its scope"
                )

    def get(self, name: str, device: torch.device) -> Tensor:
        """One Hessian [C, C] on `device`: its lower triangle, zeros above."""
        data = self.file.get_tensor(name).to(device)
        return PackedTriangle(data, self.in_features[name]).unpack()


def reused_hessians(recipe: Recipe) -> SavedHessians:
    """The kept Hessians of another run with the same calibration.

    Raises:
        UserError: there are none, or that run was calibrated differently.
    """
    other = Path(recipe.hessians or "")
    path = other / "state" / "hessians.safetensors"
    if not path.is_file() or not (other / "model").is_dir():
        raise UserError(f"--hessians {other}: no kept Hessians there; run it with --keep-hessians")
    theirs = make_recipe(read_recipe(other / "recipe.yaml")).model_dump()
    ours = recipe.model_dump()
    for name in CALIBRATION_FIELDS:
        if theirs[name] != ours[name]:
            raise UserError(
                f"--hessians {other} was calibrated with {name}={theirs[name]}, "
                f"this run asks for {ours[name]}"
            )
    return SavedHessians(path)


def read_trace_file(recipe: Recipe, tokenizer: Any) -> list[Trace]:
    """The traces that --traces names."""
    assert recipe.traces is not None
    traces = read_traces(Path(recipe.traces), tokenizer)
    if not traces:
        raise UserError(f"{recipe.traces} holds no traces")
    return traces
