"""The embedded reasoner pruned on a device has the accuracies of the demo's run on a CPU.

    python -m benchmarks.bench_embedded [--device cuda] [--out benchmarks/results]

What `rac demo` does, without its files: Hessians of generic text, of problems, and of what the
model decodes after them; SparseGPT; held-out problems, answers compared as text. A row a pattern
and calibration, with the accuracy of the demo's newest row (results/demo.jsonl) beside it, and
whether both agree: within 3 standard errors of their difference, at least 3 of 200 problems. Exits
with 1 where one does not. float32 by default, as the demo is on a CPU.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import bench_options, report, wait_for
from benchmarks.rows import latest, read_results
from rac.assets.problems import generate_problems
from rac.calibration import (
    HessianCollector,
    Sequence,
    batches,
    collect_in_one_pass,
    cut_to_budget,
    find_groups,
)
from rac.engines import Generation, Sampling, generate
from rac.engines.inputs import context_length
from rac.models import get_weight, linears, load_model, load_tokenizer, set_weight
from rac.prompts import load_prompts, load_text, render
from rac.pruning.solve import solve_group
from rac_kernels import Pattern

MODEL = "embedded"
RESULTS = Path(__file__).resolve().parent / "results"
PATTERNS = ("0.5", "0.6", "2:4")
CALIBRATIONS = ("text", "prompt", "rac")
TOKENS, PROBLEMS, NEW_TOKENS, BATCH = 40_000, 200, 256, 128
LEAST = 0.015  # of accuracy: three problems
DEVIATIONS = 3


def calibrate(model: nn.Module, tokenizer: Any, calibration: str) -> HessianCollector:
    """Hessians of TOKENS tokens, as the demo's recipe has them."""
    collector = HessianCollector(model, find_groups(model))
    context = context_length(model)
    sizes = {"max_tokens": TOKENS, "context": context}
    if calibration == "text":
        ids = load_text("embedded", tokenizer, **sizes)
    else:
        ids = [prompt.ids for prompt in load_prompts("embedded", tokenizer, **sizes)]
    if calibration == "rac":
        options = {"batch_size": BATCH, "observer": collector, "token_budget": TOKENS}
        run = Generation(model, ids, Sampling(NEW_TOKENS, 0.6, 0.95), **options)
        with collector.attached():
            while not run.done:
                run.step()
        collector.finish()
        return collector
    sequences = [Sequence(part, len(part)) for part in ids]
    collect_in_one_pass(collector, list(batches(cut_to_budget(sequences, TOKENS, context))))
    return collector


def prune(model: nn.Module, dense: dict[str, Tensor], collector: Any, pattern: str) -> None:
    """Overwrite the model's linears with what SparseGPT makes of the dense ones."""
    modules = linears(model)
    for group in collector.groups:
        weights = [dense[name] for name in group.linears]
        hessian = collector.hessian(group.name)
        pruned, _ = solve_group(
            group.linears,
            group.layer,
            weights,
            hessian,
            Pattern.parse(pattern),
            dtype=torch.bfloat16,  # that of the checkpoint
        )
        for name, weight in zip(group.linears, pruned, strict=True):
            set_weight(modules[name], weight.to(model.dtype))


def accuracy(model: nn.Module, tokenizer: Any) -> float:
    """Share of the held-out problems whose text after </think> is the boxed answer."""
    stream = generate_problems("heldout")
    problems = [next(stream) for _ in range(PROBLEMS)]
    ids = [render(tokenizer, problem.prompt, False) for problem in problems]
    end, right = tokenizer.convert_tokens_to_ids("</think>"), 0
    for trace in generate(model, ids, Sampling(NEW_TOKENS, 0.6, 0.95), batch_size=PROBLEMS):
        if end in trace.output_ids:
            final = trace.output_ids[trace.output_ids.index(end) + 1 :]
            text = tokenizer.decode(final, skip_special_tokens=True)
            right += text.strip() == rf"\boxed{{{problems[trace.index].answer}}}"
    return right / PROBLEMS


def compare(pattern: str, calibration: str, found: float, cpu: dict[tuple, dict]) -> dict:
    """Beside the demo's accuracy: agrees is None where there is none."""
    other = cpu.get((pattern, calibration))
    if other is None:
        return {"accuracy": found, "cpu_accuracy": None, "agrees": None}
    errors = found * (1 - found) / PROBLEMS + other["stderr"] ** 2
    apart = abs(found - other["accuracy"])
    agrees = apart <= max(LEAST, DEVIATIONS * math.sqrt(errors)) + 1e-9
    return {"accuracy": found, "cpu_accuracy": other["accuracy"], "agrees": agrees}


def main() -> None:
    """Command line."""
    parser = bench_options(__doc__)
    parser.add_argument("--dtype", default="float32", help="of weights and activations")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = latest(read_results(RESULTS, "demo"), "pattern", "calibration")
    cpu = {(row["pattern"], row["calibration"]): row for row in rows}
    model = load_model(MODEL, options.device, options.dtype)
    tokenizer = load_tokenizer(MODEL)
    dense = {name: get_weight(module).clone() for name, module in linears(model).items()}
    worst = True
    fixed = {"op": "embedded", "device": options.device, "dtype": options.dtype}

    def judge(pattern: str, calibration: str, seconds: float) -> bool:
        row = compare(pattern, calibration, accuracy(model, tokenizer), cpu)
        row |= {"pattern": pattern, "calibration": calibration, "prune_seconds": seconds}
        report(fixed | row, options.out, "embedded")
        return row["agrees"] is not False

    with torch.inference_mode():
        worst &= judge("dense", "dense", 0.0)
        for calibration in CALIBRATIONS:
            for name, module in linears(model).items():
                set_weight(module, dense[name])
            start = time.perf_counter()
            collector = calibrate(model, tokenizer, calibration)
            wait_for(options.device)
            calibrating = time.perf_counter() - start
            for pattern in PATTERNS:
                start = time.perf_counter()
                prune(model, dense, collector, pattern)
                wait_for(options.device)
                worst &= judge(pattern, calibration, calibrating + time.perf_counter() - start)
    if not worst:
        sys.exit("an accuracy differs from the CPU's")


if __name__ == "__main__":
    main()
