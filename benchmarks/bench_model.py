"""A whole model pruned on random weights of its exact shapes: seconds and memory of every stage.

    python -m benchmarks.bench_model --device cuda --model R1-Distill-Qwen-7B [--out FOLDER]

Stages, all by the package's own functions: `make` (random bf16 weights, on the device), `plain`
(decoding alone), `decode` (decoding with every Hessian captured on the way, flushes included),
`solve` (factor and solve of every layer, by each pattern) and `pack` (2:4, or a bitmap at 50%).
A row a stage, with the most memory there was in it. Reading and writing files is not in it.

Decoding measures `--tokens` and says what WHOLE tokens take: `plain` and `decode` are read from the
steps after WARM_UP, in which kernels compile and graphs are recorded, and `whole_seconds` is the
time before those steps, once, and the rest at their rate. The last row, `total`, is decode at
WHOLE tokens, solve and pack for one pattern, and what capturing costs of the tokens/s.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import bench_decode
from benchmarks.common import bench_options, report, wait_for
from rac.calibration import HessianCollector, find_groups
from rac.engines import Generation, Sampling
from rac.models import get_weight, linears
from rac.pruning.solve import solve_group
from rac_kernels import Pattern, pack_2to4, pack_bitmap

WHOLE = 1_000_000
TOKENS = 40_000
PROMPT, BATCH = 128, 64
WARM_UP = 64  # steps
PATTERNS = ("0.5", "2:4")


class Stages:
    """Times stages to their end on the device, and reports a row for each."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.seconds: dict[str, float] = {}

    def run(self, stage: str, function: Callable[[], dict | None], **more: object) -> None:
        """Run one stage; what it returns goes into its row."""
        device = self.options.device
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        wait_for(device)
        start = time.perf_counter()
        found = function() or {}
        wait_for(device)
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
        row = {"seconds": seconds, "peak_memory_bytes": peak} | more | found
        self.seconds[" ".join([stage, *map(str, more.values())])] = row.get(
            "whole_seconds", seconds
        )
        self.report(stage, row)

    def report(self, stage: str, row: dict) -> None:
        """A row of results."""
        fixed = {"op": "model", "device": self.options.device, "model": self.options.model}
        fixed |= {"B": self.options.batch, "stage": stage}
        report(fixed | row, self.options.out, "model")


def decode(model: nn.Module, options: Any, tokens: int, collector: HessianCollector | None) -> dict:
    """Decode `tokens` tokens, prompts included; the rate after the first WARM_UP steps."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 1000, (4 * options.batch, PROMPT), generator=generator).tolist()
    run = Generation(
        model,
        ids,
        Sampling(options.new_tokens, 1.0, 0.95),
        batch_size=options.batch,
        observer=collector,
        token_budget=tokens,
    )
    run.schedule.stop_ids = set()  # random weights stop at random
    start, steps = time.perf_counter(), 0
    with nullcontext() if collector is None else collector.attached():
        while not run.done:
            run.step()
            steps += 1
            if steps == WARM_UP:
                wait_for(options.device)
                warm, before = time.perf_counter(), tokens - (run.remaining or 0)
    if collector is not None:
        collector.finish()
    wait_for(options.device)
    if steps <= WARM_UP:
        raise RuntimeError(f"--tokens {tokens} are decoded in {steps} steps, at most {WARM_UP}")
    rate = (tokens - before) / (time.perf_counter() - warm)
    return {
        "tokens": tokens,
        "warm_up_s": warm - start,
        "tokens_per_s": rate,
        "whole_seconds": warm - start + (WHOLE - before) / rate,
        "graphs": any(run.decode_step.graphs.values()),
    }


def solve(model: nn.Module, collector: HessianCollector, pattern: Pattern) -> dict[str, Tensor]:
    """Every layer's linears, those that share an input together; the pruned weights by name."""
    modules, pruned = linears(model), {}
    for group in collector.groups:
        weights = [get_weight(modules[name]) for name in group.linears]
        hessian = collector.hessian(group.name)
        made, _ = solve_group(
            group.linears, group.layer, weights, hessian, pattern, dtype=model.dtype
        )
        pruned |= zip(group.linears, made, strict=True)
    return pruned


def pack(pruned: dict[str, Tensor], pattern: Pattern) -> dict:
    """Pack every pruned weight; the bytes before and after."""
    function = pack_2to4 if pattern.structured else pack_bitmap
    packed = sum(function(weight).nbytes for weight in pruned.values())
    return {"dense_bytes": sum(w.nbytes for w in pruned.values()), "packed_bytes": packed}


@torch.inference_mode()
def bench(options: Any) -> None:
    """All stages of one model."""
    stages, made = Stages(options), {}

    def keep(name: str, function: Callable[[], Any]) -> None:
        made[name] = function()

    stages.run(
        "make",
        lambda: keep("model", lambda: bench_decode.random_model(options.model, options.device)),
    )
    model = made["model"]
    rates = {}

    def decoding(name: str, collector: HessianCollector | None) -> dict:
        row = decode(model, options, options.tokens, collector)
        rates[name] = row["tokens_per_s"]
        return row

    stages.run("plain", lambda: decoding("plain", None))
    collector = HessianCollector(model, find_groups(model))
    stages.run("decode", lambda: decoding("decode", collector))
    collector._buffers.clear()  # their memory is not needed to solve
    for pattern in PATTERNS:
        parsed = Pattern.parse(pattern)

        def solving(parsed=parsed) -> None:
            made["pruned"] = solve(model, collector, parsed)

        stages.run("solve", solving, pattern=pattern)
        stages.run("pack", lambda parsed=parsed: pack(made["pruned"], parsed), pattern=pattern)
        made.pop("pruned")
        parts = ("decode", f"solve {pattern}", f"pack {pattern}")
        total = sum(stages.seconds[part] for part in parts)
        share = rates["plain"] / rates["decode"] - 1
        row = {"pattern": pattern, "seconds": total, "whole_tokens": WHOLE, "overhead": share}
        stages.report("total", row | {"solve_s": stages.seconds[f"solve {pattern}"]})


def main() -> None:
    """Command line."""
    parser = bench_options(__doc__)
    parser.add_argument("--model", choices=bench_decode.SHAPES, default="R1-Distill-Qwen-7B")
    parser.add_argument("--batch", type=int, default=BATCH, help="rows decoded at once")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="measured")
    parser.add_argument("--new-tokens", type=int, default=1024, help="the most after a prompt")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench(options)


if __name__ == "__main__":
    main()
