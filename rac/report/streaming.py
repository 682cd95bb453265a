"""Token errors of any two checkpoints against a dense one, with one model in memory at a time.

The dense model's rollouts and hidden states are kept on disk, a sequence at a time, and so are the
errors of each checkpoint: what was interrupted continues, and another pair along the same prompts
decodes nothing again.
"""

import hashlib
import json
import logging
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from rac.engines import Sampling, generate
from rac.errors import UserError
from rac.files import require_disk, write_atomic
from rac.report.reconstruction import Comparison, hidden_states, state_errors

ROLLOUTS_AT_ONCE = 64

logger = logging.getLogger(__name__)

Load = Callable[[str], PreTrainedModel]


def compare_checkpoints(
    load: Load,
    checkpoints: dict[str, str],
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    cache_folder: Path,
) -> Comparison:
    """Compare the folders `checkpoints`, "dense" and two others, along the dense one's rollouts.

    `prompts` are token ids. Models come from `load` one after another. In memory are one model
    and one batch of hidden states; `cache_folder` keeps the rollouts, the errors and, until both
    models are done, the dense states: bytes of a token = hidden size x bytes of the dtype.

    Raises:
        UserError: the states do not fit on the disk, or the models' hidden sizes differ.
    """
    names = [name for name in checkpoints if name != "dense"]
    keys = {name: _digest(checkpoint_key(Path(path))) for name, path in checkpoints.items()}
    work = cache_folder / _digest([keys["dense"], [list(p) for p in prompts], max_new_tokens])
    errors = {name: _read_errors(work / f"{keys[name]}.npz") for name in names}
    missing = [name for name in names if errors[name] is None]
    if missing:
        sequences = _keep_dense(load, checkpoints["dense"], prompts, max_new_tokens, work)
        for name in missing:
            logger.info("token errors of %s along %d problems", name, len(prompts))
            errors[name] = _errors(load(checkpoints[name]), sequences, work / "states", name)
            _write_errors(work / f"{keys[name]}.npz", errors[name])
        shutil.rmtree(work / "states")
    else:
        logger.info("token errors are taken from %s", work)
    return Comparison(
        errors[names[0]], errors[names[1]], [len(p) for p in prompts], (names[0], names[1])
    )


def _keep_dense(
    load: Load, folder: str, prompts: Sequence[list[int]], max_new_tokens: int, work: Path
) -> list[list[int]]:
    """Bring the dense model's rollouts and states onto the disk; returns the sequences."""
    dense = cache(lambda: load(folder))  # loaded if anything is missing, and gone when this returns
    rollouts = _rollouts(dense, prompts, max_new_tokens, work / "rollouts.jsonl")
    sequences = [list(p) + r for p, r in zip(prompts, rollouts, strict=True)]
    todo = [i for i in range(len(sequences)) if not _state_file(work / "states", i).exists()]
    if todo:
        model = dense()
        size = model.config.get_text_config().hidden_size * model.dtype.itemsize
        (work / "states").mkdir(parents=True, exist_ok=True)
        require_disk(work, size * sum(len(sequences[i]) for i in todo))
        states = hidden_states(model, [sequences[i] for i in todo])
        for index in todo:
            with write_atomic(_state_file(work / "states", index)) as temporary:
                save_file({"states": next(states)}, temporary)
    return sequences


def _state_file(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.safetensors"


def _rollouts(
    dense: Callable[[], PreTrainedModel],
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    path: Path,
) -> list[list[int]]:
    """What the dense model decodes greedily after each prompt; each is on disk when it is done."""
    found = _read_rollouts(path)
    missing = [index for index in range(len(prompts)) if index not in found]
    if missing:
        logger.info("the dense model decodes %d rollouts", len(missing))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            for place, ids in greedy(dense(), [prompts[i] for i in missing], max_new_tokens):
                found[missing[place]] = ids
                file.write(json.dumps({"index": missing[place], "ids": ids}) + "\n")
                file.flush()
    return [found[index] for index in range(len(prompts))]


def greedy(
    model: PreTrainedModel, prompts: Sequence[list[int]], max_new_tokens: int
) -> Iterator[tuple[int, list[int]]]:
    """Yield (index of the prompt, what `model` decodes greedily after it) as they finish."""
    sampling = Sampling(max_new_tokens, temperature=0.0)
    batch = min(ROLLOUTS_AT_ONCE, len(prompts))
    for trace in generate(model, prompts, sampling, batch_size=batch):
        yield trace.index, trace.output_ids


def _read_rollouts(path: Path) -> dict[int, list[int]]:
    """The whole lines of the file; a last one that was cut is taken off it."""
    if not path.is_file():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)
    rows = [json.loads(line) for line in data[:whole].splitlines()]
    return {row["index"]: row["ids"] for row in rows}


def _errors(
    model: PreTrainedModel, sequences: list[list[int]], folder: Path, name: str
) -> list[np.ndarray]:
    """e_t of each sequence; the dense states are mapped from disk one by one."""
    rows = []
    for index, states in enumerate(hidden_states(model, sequences)):
        with safe_open(_state_file(folder, index), "pt") as file:
            dense = file.get_tensor("states")
        if dense.shape != states.shape:
            raise UserError(
                f"{name} has hidden size {states.shape[-1]} and the dense model "
                f"{dense.shape[-1]}: it is not a pruned version of it"
            )
        rows.append(state_errors(dense, states))
    return rows


def _write_errors(path: Path, errors: Sequence[np.ndarray]) -> None:
    with write_atomic(path) as temporary, open(temporary, "wb") as file:
        lengths = [len(row) for row in errors]
        np.savez_compressed(file, errors=np.concatenate(errors), lengths=lengths)


def _read_errors(path: Path) -> list[np.ndarray] | None:
    try:
        with np.load(path) as data:
            return np.split(data["errors"], np.cumsum(data["lengths"])[:-1])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        logger.warning("%s cannot be read (%s); computing it again", path, error)
        return None


def checkpoint_key(folder: Path) -> list[list[Any]]:
    """Names, sizes and times of a checkpoint's files: what tells that it changed."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
