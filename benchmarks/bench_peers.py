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
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.bench_prune import alone
from benchmarks.common import append_row
from rac import trace
from rac.calibration import cut_to_budget, from_traces
from rac.errors import UserError
from rac.recipe import make_recipe
from rac.traces import read_traces

ROOT = Path(__file__).parent.parent
RESULTS = "peers.jsonl"
# name -> (module, propagation, collector)
CONTENDERS = {
    "rac, one pass": ("ours", "dense", "decode"),
    "rac, replay": ("ours", "dense", "replay"),
    "eager SparseGPT": ("eager_sparsegpt", "dense", "auto"),
    "llm-compressor": ("llmcompressor_oneshot", "dense", "auto"),
    "rac, replay (pruned)": ("ours", "pruned", "replay"),
    "eager SparseGPT (pruned)": ("eager_sparsegpt", "pruned", "auto"),
    "llm-compressor (pruned)": ("llmcompressor_oneshot", "pruned", "auto"),
}


def make_traces(values: dict, out: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    trace(make_recipe(values), out, quiet=True)


def calibration_ids(options: argparse.Namespace, work: Path) -> tuple[Path, Path, int]:
    """The dense model's own traces, the ids that they fed in (JSON lines), and how many."""
    values = {
        "model": str(options.model),
        "prompts": options.prompts,
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
    name: str, pattern: str, options: argparse.Namespace, work: Path, inputs: tuple
) -> Path:
    """Run one contender; returns its folder."""
    module, propagate, collector = CONTENDERS[name]
    traces, ids, _ = inputs
    folder = work / f"{name} {pattern}".replace(":", "of").replace(" ", "-")
    theirs = module == "llmcompressor_oneshot"
    python = options.llmcompressor_python if theirs else sys.executable
    arguments = ["--model", options.model.resolve(), "--ids", ids, "--traces", traces]
    arguments += ["--pattern", pattern, "--propagate", propagate, "--collector", collector]
    arguments += ["--threads", options.threads, "--out", folder]
    run_module(python, module, arguments, options.threads, work / f"{folder.name}.log")
    logging.info("%s, %s: %.1f s", name, pattern, _read(folder / "result.json")["seconds"])
    return folder


def _read(path: Path) -> dict:
    return json.loads(path.read_text())


def bench(options: argparse.Namespace, work: Path) -> None:
    """Traces, contenders, judgement, rows."""
    inputs = calibration_ids(options, work)
    names = list(CONTENDERS)
    if not has_llmcompressor(options.llmcompressor_python):
        logging.warning("llmcompressor is not installed here: its rows are left out")
        names = [n for n in names if not n.startswith("llm-compressor")]
    folders = {
        (name, pattern): run_contender(name, pattern, options, work, inputs)
        for pattern in options.patterns
        for name in names
    }
    judged = [options.model.resolve(), inputs[1], options.threads, *folders.values()]
    run_module(sys.executable, "judge", judged, options.threads, work / "judge.log")
    for (name, pattern), folder in folders.items():
        write_row(name, pattern, options, inputs[2], folder)


def write_row(
    name: str, pattern: str, options: argparse.Namespace, tokens: int, folder: Path
) -> None:
    errors = _read(folder / "errors.json")
    row = {
        "contender": name.removesuffix(" (pruned)"),
        "propagate": CONTENDERS[name][1],
        "model": "SmolLM2-135M-Instruct (Q4_1, dequantised)",
        "pattern": pattern,
        "dtype": "float32",
        "calibration": "the model's own traces",
        "tokens": tokens,
        "threads": options.threads,
        "sparsity": errors["sparsity"],
        "mean_layer_error": fmean(errors["layers"].values()),
    }
    append_row(
        options.out / RESULTS,
        row
        | {
            "contender_" + k if k == "versions" else k: v
            for k, v in _read(folder / "result.json").items()
        },
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("runs/smollm2"), help="see smollm2.py")
    parser.add_argument("--prompts", default="embedded", help="embedded, or a file of problems")
    parser.add_argument("--tokens", type=int, default=20_000, help="calibration tokens")
    parser.add_argument("--max-new-tokens", type=int, default=384)
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
    work = (options.work or Path(tempfile.mkdtemp(prefix="bench-peers-"))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        if not (options.model / "config.json").is_file():
            make = f"python benchmarks/smollm2.py --out {options.model}"
            raise UserError(f"--model {options.model}: no model there; make it with {make}")
        bench(options, work)
    except UserError as error:
        sys.exit(f"bench_peers: {error}")
    if options.work is None:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
