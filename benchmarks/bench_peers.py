"""Ours beside other SparseGPTs: same model, same token ids, same sparsity, one run.

    python -m benchmarks.bench_peers [--model runs/smollm2] [--out benchmarks/results]

Contenders, each a process of its own with the same number of threads, all in float32:
rac (`decode`: one pass; `replay`: a layer at a time), the eager SparseGPT of its authors' script
(peers/eager_sparsegpt.py), and llm-compressor's oneshot. Both ways of propagating are run: `dense`
(every layer sees the dense model's activations) and `pruned` (those of the layers pruned so far).

Seconds are calibration and solving, without loading the model and without writing a checkpoint.
Errors are measured for all by peers/judge.py, on the dense model's activations, on bf16 weights.
"""

import argparse
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch

from benchmarks.bench_prune import MODEL, alone, check_model, split_prompts
from benchmarks.common import append_row
from rac import trace
from rac.calibration import cut_to_budget, from_traces
from rac.errors import UserError
from rac.recipe import make_recipe
from rac.traces import read_traces

ROOT = Path(__file__).parent.parent
RESULTS = "peers.jsonl"


class Contender(NamedTuple):
    """A name in the table, the module in peers/ that runs it, and how."""

    name: str
    module: str
    propagate: str
    collector: str = "auto"


CONTENDERS = (
    Contender("rac, one pass", "ours", "dense", "decode"),
    Contender("rac, replay", "ours", "dense", "replay"),
    Contender("eager SparseGPT", "eager_sparsegpt", "dense"),
    Contender("llm-compressor", "llmcompressor_oneshot", "dense"),
    Contender("rac, replay", "ours", "pruned", "replay"),
    Contender("eager SparseGPT", "eager_sparsegpt", "pruned"),
    Contender("llm-compressor", "llmcompressor_oneshot", "pruned"),
)


def make_traces(values: dict, out: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    trace(make_recipe(values), out, quiet=True)


def calibration_ids(options: argparse.Namespace, work: Path) -> tuple[Path, Path, int]:
    """The dense model's own traces, the ids that they fed in (JSON lines), and how many."""
    values = {
        "model": str(options.model),
        "prompts": split_prompts(options.prompts, 1, work)[0],
        "tokens": options.tokens,
        "max_new_tokens": options.max_new_tokens,
        "device": "cpu",
        "dtype": "float32",
    }
    alone(make_traces, values, work / "traces", options.threads)
    traces = sorted(read_traces(work / "traces" / "traces.parquet"), key=lambda t: t.index)
    sequences = cut_to_budget(from_traces(traces), options.tokens, 2**31)
    ids = work / "ids.jsonl"
    ids.write_text("".join(json.dumps(s.ids) + "\n" for s in sequences))
    return work / "traces" / "traces.parquet", ids, sum(len(s.ids) for s in sequences)


def run_module(python: str, module: str, arguments: list, threads: int, log: Path) -> None:
    """Run `python -m benchmarks.peers.<module>` to its end; its output goes into `log`.

    Raises:
        UserError: it failed; names the log.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [python, "-m", f"benchmarks.peers.{module}", *map(str, arguments)]
    with open(log, "w") as output:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    if done.returncode:
        last = (log.read_text().strip().splitlines() or ["no output"])[-1]
        raise UserError(f"{module} failed: {last} (all of it: {log})")


def has_llmcompressor(python: str) -> bool:
    """Whether `python` can import it."""
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('llmcompressor') is None)"
    return subprocess.run([python, "-c", code]).returncode == 0


def run_contender(
    contender: Contender, pattern: str, options: argparse.Namespace, work: Path, inputs: tuple
) -> Path:
    """Run one contender; returns its folder."""
    traces, ids, _ = inputs
    name = f"{contender.name} {contender.propagate} {pattern}"
    folder = work / re.sub(r"\W+", "-", name)
    theirs = contender.module == "llmcompressor_oneshot"
    python = options.llmcompressor_python if theirs else sys.executable
    arguments = ["--model", options.model.resolve(), "--ids", ids, "--traces", traces]
    arguments += ["--pattern", pattern, "--propagate", contender.propagate]
    arguments += ["--collector", contender.collector]
    arguments += ["--threads", options.threads, "--out", folder]
    run_module(python, contender.module, arguments, options.threads, work / f"{folder.name}.log")
    logging.info("%s: %.1f s", name, _read(folder / "result.json")["seconds"])
    return folder


def _read(path: Path) -> dict:
    return json.loads(path.read_text())


def bench(options: argparse.Namespace, work: Path) -> None:
    """Traces, contenders, judgement, rows."""
    inputs = calibration_ids(options, work)
    contenders = CONTENDERS
    if not has_llmcompressor(options.llmcompressor_python):
        logging.warning("llmcompressor is not installed here: its rows are left out")
        contenders = tuple(c for c in CONTENDERS if c.module != "llmcompressor_oneshot")
    folders = {
        (contender, pattern): run_contender(contender, pattern, options, work, inputs)
        for pattern in options.patterns
        for contender in contenders
    }
    judged = [options.model.resolve(), inputs[1], options.threads, *folders.values()]
    run_module(sys.executable, "judge", judged, options.threads, work / "judge.log")
    for (contender, pattern), folder in folders.items():
        row = result_row(contender, pattern, options, inputs[2], folder)
        append_row(options.out / RESULTS, row)


def result_row(
    contender: Contender, pattern: str, options: argparse.Namespace, tokens: int, folder: Path
) -> dict:
    errors = _read(folder / "errors.json")
    return {
        "contender": contender.name,
        "propagate": contender.propagate,
        "model": MODEL,
        "prompts": Path(options.prompts).name,
        "calibration": "the model's own traces",
        "pattern": pattern,
        "dtype": "float32",
        "tokens": tokens,
        "sparsity": errors["sparsity"],
        "mean_layer_error": fmean(errors["layers"].values()),
        **_read(folder / "result.json"),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("runs/smollm2"), help="see smollm2.py")
    parser.add_argument("--prompts", default="embedded", help="embedded, or a file of problems")
    parser.add_argument("--tokens", type=int, default=4_000, help="calibration tokens")
    parser.add_argument("--max-new-tokens", type=int, default=320)
    parser.add_argument("--patterns", nargs="+", default=["0.5", "2:4"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--llmcompressor-python", default=sys.executable, help="its interpreter")
    parser.add_argument("--work", type=Path, help="keep the contenders' folders here")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def main() -> None:
    """Command line."""
    options = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    work = (options.work or Path(tempfile.mkdtemp(prefix="bench-peers-"))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        check_model(options.model)
        bench(options, work)
    except UserError as error:
        sys.exit(f"bench_peers: {error}")
    if options.work is None:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
