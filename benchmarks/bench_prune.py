"""RAC against prompt-only and generic-text calibration on a real model: SmolLM2-135M-Instruct.

    python -m benchmarks.bench_prune [--model runs/smollm2] [--out benchmarks/results]

Prunes the model with `rac.prune` at each pattern and calibration, same token budget, and measures
perplexity and KL(dense || pruned) on traces that the *dense* model decoded for held-out problems.
Each prune is a process of its own, so that the peak memory in its `rac.json` is its own.
"""

import argparse
import json
import logging
import multiprocessing
import pydoc_data.topics
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import append_row
from benchmarks.divergence import compare
from rac import prune
from rac.assets.problems import generate_problems
from rac.engines import Sampling, generate
from rac.errors import UserError
from rac.files import read_json
from rac.models import load_model, load_tokenizer
from rac.prompts import PROMPT_COLUMNS, read_rows, render
from rac.recipe import make_recipe
from rac.traces import read_traces, write_traces

CALIBRATIONS = ("rac", "prompt", "text")
INSTRUCTION = " Think step by step and explain every calculation before the answer."
PROBLEMS = 2000  # of the embedded ones, for calibration
RESULTS = "prune_smollm2.jsonl"
MODEL = "SmolLM2-135M-Instruct (Q4_1, dequantised)"


def alone(function: Callable, *args: Any) -> Any:
    """`function(*args)` in a fresh process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def check_model(folder: Path) -> None:
    """Raises UserError where `folder` holds no model; says how to make it."""
    if not (folder / "config.json").is_file():
        make = f"python benchmarks/smollm2.py --out {folder}"
        raise UserError(f"--model {folder}: no model there; make it with {make}")


def english_paragraphs(least: int = 160) -> Iterator[str]:
    """Paragraphs of prose from the language reference that ships with Python (PSF licence)."""
    seen: set[str] = set()
    for topic in sorted(pydoc_data.topics.topics):
        for part in pydoc_data.topics.topics[topic].split("\n\n"):
            text = " ".join(part.split())
            plain = sum(c.isalpha() or c in " .,;'" for c in text)
            if len(text) >= least and plain > 0.9 * len(text) and text not in seen:
                seen.add(text)
                yield text


def write_documents(path: Path, characters: int = 2000) -> None:
    """The generic-English calibration: paragraphs joined to documents, as JSON lines."""
    documents, parts = [], []
    for paragraph in english_paragraphs():
        parts.append(paragraph)
        if sum(map(len, parts)) >= characters:
            documents.append("\n\n".join(parts))
            parts = []
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))


def split_prompts(source: str, heldout: int, folder: Path) -> tuple[str, list]:
    """A file of calibration prompts, and `heldout` other prompts.

    The embedded generator has a held-out split of its own, and its problems are asked for with
    INSTRUCTION; of a file, the last rows are held out.
    """
    if source == "embedded":
        calibration, rest = generate_problems("calibration"), generate_problems("heldout", seed=1)
        rows = [{"prompt": next(calibration).prompt + INSTRUCTION} for _ in range(PROBLEMS)]
        rows += [{"prompt": next(rest).prompt + INSTRUCTION} for _ in range(heldout)]
    else:
        rows = list(read_rows(source))
    if len(rows) < 2 * heldout:
        raise UserError(f"--prompts {source}: {len(rows)} rows, needs {2 * heldout} or more")
    path = folder / "calibration.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:-heldout]))
    name = next((c for c in PROMPT_COLUMNS if c in rows[0]), None)
    if name is None:
        raise UserError(f"--prompts {source}: no column {' or '.join(PROMPT_COLUMNS)}")
    return str(path), [row[name] for row in rows[-heldout:]]


def run_prune(values: dict, out: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    prune(make_recipe(values), out, quiet=True)


def decode_heldout(model: Path, prompts: list, longest: int, path: Path, threads: int) -> None:
    """The dense model's own traces for the held-out prompts, into a trace file."""
    torch.set_num_threads(threads)
    tokenizer = load_tokenizer(model)
    ids = [render(tokenizer, prompt) for prompt in prompts]
    dense = load_model(model, "cpu", "float32")
    sampling = Sampling(max_new_tokens=longest, seed=12345)
    write_traces(path, list(generate(dense, ids, sampling, batch_size=32)), tokenizer)


def evaluate(model: Path, folders: dict[str, Path], traces: Path, threads: int) -> dict:
    """The divergence of the models in `folders`, and of the dense one, on `traces`."""
    torch.set_num_threads(threads)
    dense = load_model(model, "cpu", "float32")
    models = {"dense": dense} | {k: load_model(f, "cpu", "float32") for k, f in folders.items()}
    return compare(dense, models, read_traces(traces))


def result_row(record: dict, divergence: dict, options: argparse.Namespace) -> dict:
    """One line of results from a run's `rac.json` and its divergence."""
    return {
        "model": MODEL,
        "prompts": Path(options.prompts).name,
        "calibration": record["calibration"],
        "pattern": record["pattern"],
        "solver": record["solver"],
        "collector": record["collector"],
        "propagate": record["propagate"],
        "tokens": record["tokens"],
        "prompt_tokens": record["prompt_tokens"],
        "decode_tokens": record["decode_tokens"],
        "sparsity": record["sparsity"],
        "mean_layer_error": record["error"],
        "seconds": record["seconds"],
        "peak_memory_bytes": record["peak_memory_bytes"],
        **flat(divergence),
    }


def flat(divergence: dict) -> dict:
    """{"kl_decode": ..., "ppl_decode": ..., "tokens_decode": ..., "kl_prompt": ...}."""
    return {f"{k}_{part}": v for part, values in divergence.items() for k, v in values.items()}


def bench(options: argparse.Namespace, work: Path) -> None:
    """All prunes, the held-out traces, the evaluation, the rows."""
    documents = work / "text.jsonl"
    write_documents(documents)
    prompts, heldout = split_prompts(options.prompts, options.heldout, work)
    folders: dict[str, Path] = {}
    for calibration in CALIBRATIONS:
        for pattern in options.patterns:
            name = f"{calibration}-{pattern}".replace(":", "of")
            values = {
                "model": str(options.model),
                "prompts": str(documents) if calibration == "text" else prompts,
                "calibration": calibration,
                "pattern": pattern,
                "tokens": options.tokens,
                "max_new_tokens": options.max_new_tokens,
                "device": "cpu",
                "dtype": "float32",
            }
            first = work / f"{calibration}-{options.patterns[0]}".replace(":", "of")
            values["keep_hessians"] = first == work / name and len(options.patterns) > 1
            values["hessians"] = None if first == work / name else str(first)
            start = time.perf_counter()
            alone(run_prune, values, work / name, options.threads)
            logging.info("%s: %.0f s", name, time.perf_counter() - start)
            folders[name] = work / name / "model"
    traces = work / "heldout.parquet"
    longest = options.max_new_tokens
    alone(decode_heldout, options.model, heldout, longest, traces, options.threads)
    found = alone(evaluate, options.model, folders, traces, options.threads)
    write_rows(options, folders, found)


def write_rows(options: argparse.Namespace, folders: dict[str, Path], found: dict) -> None:
    path = options.out / RESULTS
    dense = {"model": MODEL, "prompts": Path(options.prompts).name, "calibration": "dense"}
    append_row(path, dense | {"pattern": "dense"} | flat(found["dense"]))
    for name, folder in folders.items():
        append_row(path, result_row(read_json(folder / "rac.json"), found[name], options))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("runs/smollm2"), help="see smollm2.py")
    parser.add_argument("--prompts", default="embedded", help="embedded, or a file of problems")
    parser.add_argument("--tokens", type=int, default=10_000, help="calibration tokens")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--heldout", type=int, default=16, help="held-out problems")
    parser.add_argument("--patterns", nargs="+", default=["0.5", "2:4"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--work", type=Path, help="keep the runs in this folder")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def main() -> None:
    """Command line."""
    options = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    work = options.work or Path(tempfile.mkdtemp(prefix="bench-prune-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        check_model(options.model)
        bench(options, work)
    except UserError as error:
        sys.exit(f"bench_prune: {error}")
    finally:
        if options.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
