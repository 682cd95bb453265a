"""Run directories made of invented numbers, for the report's tests and for looking at its page."""

import dataclasses
import json
import math
import random
from pathlib import Path

from rac.evaluation.responses import Response

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SETTINGS = {
    "task": "embedded",
    "problems": "0123456789abcdef",
    "n": 200,
    "grader": "exact",
    "max_new_tokens": 320,
    "temperature": 0.6,
    "top_p": 0.95,
    "seed": 0,
    "raw_prompts": False,
    "prompts": "fedcba9876543210",
    "dtype": "float32",
    "device": "cpu",
}
SPARSITIES = {"dense": 0.0, "2:4": 0.5} | {f"0.{i}": i / 10 for i in range(1, 9)}
# accuracy and minutes of a prototype: pattern -> text, prompt, rac
PROTOTYPE = {
    "0.3": ((0.980, 0.935, 0.985), (0.42, 0.44, 0.41)),
    "0.5": ((0.940, 0.580, 0.950), (0.47, 0.71, 0.43)),
    "0.6": ((0.040, 0.000, 0.960), (1.21, 1.34, 0.46)),
    "2:4": ((0.410, 0.010, 0.810), (0.93, 1.30, 0.52)),
}


def summary(pattern: str, calibration: str, accuracy: float, minutes: float, source: str) -> dict:
    """The contents of an evaluation's summary file."""
    n = SETTINGS["n"]
    tokens = 190 + 130 * (1 - accuracy)
    return {
        "task": SETTINGS["task"],
        "pattern": pattern,
        "calibration": calibration,
        "solver": None if pattern == "dense" else "sparsegpt",
        "model": source,
        "source_model": source,
        "sparsity": SPARSITIES[pattern],
        "n": n,
        "accuracy": accuracy,
        "stderr": math.sqrt(accuracy * (1 - accuracy) / n),
        "minutes": minutes,
        "output_tokens": tokens,
        "output_tokens_median": tokens - 4,
        "output_tokens_p95": 320.0,
        "tokens_per_second": n * tokens / minutes / 60,
        "limit_share": (1 - accuracy) / 2,
        "unfinished_share": (1 - accuracy) / 2,
        "batch_size": 64,
        "device": "cpu",
        "settings": dict(SETTINGS),
    }


def record(pattern: str, calibration: str, source: str, layers: int = 4, seed: int = 0) -> dict:
    """The contents of `model/rac.json`."""
    rng = random.Random(f"{pattern}{calibration}{seed}")
    sparsity = SPARSITIES[pattern]
    rows = [
        {
            "name": f"model.layers.{layer}.{name}",
            "layer": layer,
            "shape": [256, 256],
            "sparsity": sparsity,
            "error": sparsity**2 * (0.3 + 0.08 * layer + 0.2 * rng.random()),
            "damping": 0.01,
            "attempts": 1,
            "seconds": 0.1,
        }
        for layer in range(layers)
        for name in LINEARS
    ]
    lengths = [int(random.Random(i).gauss(185, 22)) for i in range(140)]
    traces = {"count": len(lengths), "lengths": lengths, "finish": {"stop": len(lengths)}}
    return {
        "rac_version": "0.1.0",
        "source_model": source,
        "pattern": pattern,
        "solver": "sparsegpt",
        "calibration": calibration,
        "collector": "decode",
        "propagate": "dense",
        "tokens": 40_000,
        "prompt_tokens": 14_000,
        "decode_tokens": 26_000,
        "seconds": {"calibration": 6 + 4 * rng.random(), "pruning": 2 + rng.random()},
        "peak_memory_bytes": 10**9,
        "traces": traces if calibration == "rac" else None,
        "sparsity": sparsity,
        "layers": rows,
    }


def response(index: int, correct: bool, sample: int = 0, **changes: object) -> Response:
    """One response to question `index`."""
    values = {
        "index": index,
        "prompt": f"Question {index}?",
        "answer": "42",
        "text": f"<think>{'so ' * (5 + index % 7)}</think>It is {42 if correct else 41}.",
        "predicted": "42" if correct else "41",
        "correct": bool(correct),
        "finished": True,
        "finish_reason": "stop",
        "prompt_tokens": 4,
        "output_tokens": 10 + index,
        "seconds": 0.1 * index,
        "sample": sample,
    }
    return Response(**values | changes)


def write_responses(
    run: Path,
    correct: list,
    settings: dict | None = None,
    task: str = "embedded",
    **changes: object,
) -> Path:
    """Write `eval/<task>.jsonl`: whether each question, or each of its samples, is right."""
    samples = [c if isinstance(c, list) else [c] for c in correct]
    rows = [
        response(index, right, sample, **changes)
        for index, rights in enumerate(samples)
        for sample, right in enumerate(rights)
    ]
    header = SETTINGS | {"n": len(samples), "task": task} | (settings or {})
    path = run / "eval" / f"{task}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"settings": header}, *(dataclasses.asdict(row) for row in rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_run(
    path: Path,
    pattern: str,
    calibration: str,
    accuracy: float,
    minutes: float,
    source: str = "tiny",
    task: str = "embedded",
    **changes: object,
) -> Path:
    """Write one run directory without weights; returns `path`. `changes` are of its summary."""
    (path / "eval").mkdir(parents=True, exist_ok=True)
    values = summary(pattern, calibration, accuracy, minutes, source) | {"task": task} | changes
    values["settings"]["task"] = task
    (path / "eval" / f"{task}.json").write_text(json.dumps(values))
    if pattern != "dense":
        (path / "model").mkdir(exist_ok=True)
        values = record(pattern, calibration, source)
        (path / "model" / "rac.json").write_text(json.dumps(values))
    return path


def write_prototype(root: Path, source: str = "tiny") -> list[Path]:
    """Write dense and every pattern x calibration of the prototype; returns the directories."""
    runs = [write_run(root / "dense", "dense", "dense", 0.987, 0.40, source)]
    for pattern, (accuracies, minutes) in PROTOTYPE.items():
        names = zip(("text", "prompt", "rac"), accuracies, minutes, strict=True)
        runs += [
            write_run(root / f"{pattern}-{name}".replace(":", "-"), pattern, name, a, m, source)
            for name, a, m in names
        ]
    return runs


def write_paired(root: Path) -> list[Path]:
    """Dense, text and rac at 50% with ten responses each; returns the directories."""
    answers = {"dense": [True] * 10, "text": [False] * 8 + [True] * 2, "rac": [True] * 9 + [False]}
    runs = []
    for name, correct in answers.items():
        pattern = "dense" if name == "dense" else "0.5"
        runs.append(write_run(root / name, pattern, name, sum(correct) / 10, 1.0))
        write_responses(runs[-1], correct)
    return runs
