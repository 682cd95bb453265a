"""Which tiles are fastest on this GPU, for each op and class of shape; written for later runs.

    python -m benchmarks.tune --device cuda [--write FILE] [--out benchmarks/results]

The candidates are those of rac_kernels/_triton/tuning.py, and all take turns on the same random
data; one that a GPU refuses, or whose result is not the default's within rounding, is left out. A
row a candidate. `--write` puts the fastest into FILE, under the GPU's name, beside what FILE has of
others: RAC_TUNED=FILE has it used, copied over rac_kernels/_triton/tuned.json it is used by all.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_sparsegpt import random_hessian
from benchmarks.common import bench_options, device_seconds, report
from rac.files import write_atomic
from rac_kernels import Pattern, factor_hessian
from rac_kernels._triton import factor_hessian as factor_kernels
from rac_kernels._triton import hessian_accumulate as hessian_kernels
from rac_kernels._triton import sparsegpt as solve_kernels
from rac_kernels._triton import tuning

# Class of shape -> D, T and dtype that stand for it: 7B hidden and ffn, 1.5B hidden.
HESSIANS = {
    "wide": ((5120, 4096, torch.bfloat16), (18944, 8192, torch.bfloat16)),
    "narrow": ((1536, 4096, torch.bfloat16), (2048, 16384, torch.bfloat16)),
    "float32": ((1536, 4096, torch.float32), (5120, 4096, torch.float32)),
}
SOLVES = ((18944, 3584), (3584, 18944))  # R x C of a 7B's gate and down
FACTORS = (3584, 5120, 13824)
AGREES = 1e-4  # ||difference|| / ||result||
Run = Callable[[Any], Tensor]


def hessian_runs(kind: str) -> Iterator[tuple[str, Run]]:
    """H += X^T X at every shape of a class."""
    for features, tokens, dtype in HESSIANS[kind]:
        x = torch.randn(tokens, features, device="cuda", dtype=dtype)
        hessian = torch.zeros(features, features, device="cuda")

        def run(config: tuning.HessianConfig, x=x, hessian=hessian) -> Tensor:
            return hessian_kernels.hessian_accumulate_(hessian.zero_(), x, None, config=config)

        yield f"D={features} T={tokens}", run


def solve_runs(_: str) -> Iterator[tuple[str, Run]]:
    """SparseGPT at 50% of a layer whose factor is there."""
    for rows, columns in SOLVES:
        factor = factor_hessian(random_hessian(columns, "cuda"))
        weight = torch.randn(rows, columns, device="cuda").bfloat16()
        job = ([weight], factor.upper, factor.dead, Pattern.parse("0.5"))

        def run(config: tuning.SolveConfig, job=job) -> Tensor:
            with replaced("pick_solve", config):
                options = {"block_size": 128, "compat": False, "masks": None}
                return solve_kernels.sparsegpt(*job, **options)[0][0].float()

        yield f"R={rows} C={columns}", run


def factor_runs(_: str) -> Iterator[tuple[str, Run]]:
    """H = U U^T in place; a copy of H is part of it."""
    for columns in FACTORS:
        hessian = random_hessian(columns, "cuda")
        hessian.diagonal().add_(0.01 * hessian.diagonal().mean())

        def run(config: tuning.FactorConfig, hessian=hessian) -> Tensor:
            copied = hessian.clone()
            with replaced("pick_factor", config):
                factor_kernels.reversed_cholesky_(copied)
            return copied.tril_()

        yield f"C={columns}", run


class replaced:  # noqa: N801 - used as a context
    """Has a function of tuning.py choose `config`."""

    def __init__(self, name: str, config: Any) -> None:
        self.name, self.config = name, config

    def __enter__(self) -> None:
        self.before = getattr(tuning, self.name)
        setattr(tuning, self.name, lambda device: self.config)

    def __exit__(self, *_: object) -> None:
        setattr(tuning, self.name, self.before)


def seconds_of(run: Run, configs: tuple, options: argparse.Namespace) -> dict[int, float]:
    """Seconds of each candidate that runs and agrees with the first, by its number."""
    truth, kept = run(configs[0]).clone(), {}
    for number, config in enumerate(configs):
        try:
            error = float((run(config) - truth).norm() / truth.norm())
        except Exception as failure:  # whatever a compiler or a driver raises: not this one
            print(f"left out: {config}: {str(failure).splitlines()[0]}", flush=True)
            continue
        if error <= AGREES:
            kept[number] = lambda config=config: run(config)
        else:
            print(f"left out: {config}: differs by {error}", flush=True)
    return device_seconds(kept, options.repeats, options.device)


def choose(
    op: str, kind: str, configs: tuple, runs: Iterator[tuple[str, Run]], options: argparse.Namespace
) -> dict[str, Any]:
    """Fields in which the fastest candidate differs from the default; {} if it is the default.

    Fastest is the least sum, over shapes, of its time over the default's.
    """
    ratios: dict[int, list[float]] = {}
    for shape, run in runs:
        seconds = seconds_of(run, configs, options)
        for number, value in seconds.items():
            ratios.setdefault(number, []).append(value / seconds[0])
            row = {"op": op, "device": options.device, "kind": kind, "shape": shape}
            row |= {"config": dataclasses.asdict(configs[number]), "time_ms": value * 1e3}
            report(row | {"of_default": value / seconds[0]}, options.out, "tune")
    shapes = max(map(len, ratios.values()))
    complete = {n: sum(values) for n, values in ratios.items() if len(values) == shapes}
    best = dataclasses.asdict(configs[min(complete, key=complete.__getitem__)])
    default = dataclasses.asdict(configs[0])
    return {name: value for name, value in best.items() if value != default[name]}


def factor_choice(options: argparse.Namespace) -> dict[str, Any]:
    """The least C from which on the Triton factor beats the one made of cuSOLVER's calls."""
    least = None
    for columns in sorted(FACTORS, reverse=True):
        hessian = random_hessian(columns, "cuda")
        impls = ("triton", "reference")
        functions = {i: (lambda i=i, h=hessian: factor_hessian(h, impl=i)) for i in impls}
        seconds = device_seconds(functions, options.repeats, options.device)
        if seconds["triton"] >= seconds["reference"]:
            break
        least = columns
    return {} if least is None else {"least": least}


def write(path: Path, found: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Put what was found under this GPU's name into a file that may have others'."""
    table = json.loads(path.read_text()) if path.is_file() else {}
    table[torch.cuda.get_device_name()] = found
    with write_atomic(path) as temporary:
        temporary.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Command line."""
    parser = bench_options(__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="where the fastest go")
    options = parser.parse_args()
    torch.manual_seed(0)
    capability = tuning.capability(torch.device(options.device))
    jobs = [("hessian", k, tuning.HESSIAN[capability, k], hessian_runs) for k in HESSIANS]
    jobs.append(("solve", "all", tuning.SOLVE[capability], solve_runs))
    jobs.append(("factor", "all", tuning.FACTOR[capability], factor_runs))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for op, kind, configs, runs in jobs:
        found.setdefault(op, {})[kind] = choose(op, kind, configs, runs(kind), options)
    found["factor"]["choice"] = factor_choice(options)
    print(json.dumps(found, indent=2))
    if options.write:
        write(options.write, found)


if __name__ == "__main__":
    main()
