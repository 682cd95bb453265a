"""`rac prune` from start to checkpoint, this commit beside an earlier one, in turns.

    python -m benchmarks.bench_end_to_end --before COMMIT [--model embedded ...] [--out ...]

The earlier commit is checked out and built in a temporary folder; both run as a user runs them, in
a process of their own, with the same interpreter, recipe and threads. Seconds are those of the
whole process: imports, loading, decoding, Hessians, solving, checkpoint.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench_prune import INSTRUCTION
from benchmarks.common import ROOT, environment, report, time_once
from rac.assets.problems import generate_problems
from rac.files import read_json

RECIPES = {  # of the embedded model, and of any other
    True: {"tokens": 40_000, "max-new-tokens": 400, "batch-size": 128},
    False: {"tokens": 10_000, "max-new-tokens": 256, "batch-size": 64},
}


def check_out(commit: str, folder: Path) -> None:
    """A built checkout of `commit` in `folder`."""
    archive = call(["git", "archive", commit], cwd=ROOT)
    call(["tar", "-x", "-C", str(folder)], input=archive)
    call([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder)


def call(command: list[str], **options: Any) -> bytes:
    """The command's stdout; where it fails, exit with the end of what it said."""
    done = subprocess.run(command, capture_output=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


def prune(source: Path, model: str, prompts: Path, out: Path, threads: int) -> dict:
    """Run `rac prune` with the code in `source`; its `rac.json`."""
    command = [sys.executable, "-m", "rac", "prune", "--model", model, "--pattern", "0.5"]
    for name, value in RECIPES[model == "embedded"].items():
        command += [f"--{name}", str(value)]
    if model != "embedded":
        command += ["--prompts", str(prompts)]
    variables = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads)}
    command += ["--out", str(out), "--quiet", "--device", "cpu"]
    call(command, cwd=out.parent, env=variables)
    return read_json(out / "model" / "rac.json")


def bench(model: str, before: Path, work: Path, options: argparse.Namespace) -> None:
    """Both versions in turns; a row for each."""
    prompts = work / "prompts.jsonl"
    problems = generate_problems("calibration")
    rows = ({"prompt": next(problems).prompt + INSTRUCTION} for _ in range(400))
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {"before": before, "now": ROOT}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    records: dict[str, dict] = {}
    for turn in range(options.repeats):
        for name, source in sources.items():
            out = work / f"{Path(model).name}-{name}-{turn}"

            def run(name: str = name, source: Path = source, out: Path = out) -> None:
                records[name] = prune(source, model, prompts, out, options.threads)

            seconds[name].append(time_once(run, "cpu"))
    slow = statistics.median(seconds["before"])
    for name, record in records.items():
        row = {"op": "rac prune", "model": Path(model).name, "version": name, "device": "cpu"}
        row["version_commit"] = options.before if name == "before" else environment()["commit"]
        row |= {key: record[key] for key in ("tokens", "prompt_tokens", "decode_tokens")}
        row |= {"seconds": statistics.median(seconds[name]), "all_seconds": seconds[name]}
        row |= {"stages": record["seconds"], "speedup": slow / row["seconds"]}
        row |= {"error": record["error"], "peak_memory_bytes": record["peak_memory_bytes"]}
        report(row, options.out, "end_to_end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", required=True, help="the commit to compare with")
    parser.add_argument("--model", nargs="+", default=["embedded"], help="names or folders")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder to append result rows to")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="bench-end-to-end-") as folder:
        work = Path(folder)
        (work / "before").mkdir()
        check_out(options.before, work / "before")
        for model in options.model:
            place = model if model == "embedded" else str(Path(model).resolve())
            bench(place, work / "before", work, options)


if __name__ == "__main__":
    main()
