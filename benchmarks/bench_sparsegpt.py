"""A whole layer's SparseGPT (factor and solve) against the published algorithm run eagerly.

    python -m benchmarks.bench_sparsegpt [--device cuda] [--threads N] [--shape R C] [--out FOLDER]

The baseline is benchmarks/peers/eager_sparsegpt.py: Cholesky, inverse, upper Cholesky, a loop over
columns in torch; beside it, where it is installed, llm-compressor's own sparsify_weight. The floor
is C^3/3 + R*C^2 flops (the factor and the left-looking products) at the rate of a matrix product
that takes turns with ours; the baselines take theirs after. No row is reported unless our output
error ||(W - Q) X|| is that of the baseline, within 1e-4. `extra_over_inputs` is the most memory
that factor and solve have at a time beyond W and H, copies and results included, over the bytes of
W and H; `scratch_over_inputs` is what is left of it when the factor may take H's memory, the pruned
weight and the mask not counted.

`--model 7b` (or 14b, 32b) times ours alone on all linears of one decoder layer of that shape, those
that share an input solved together, and says what all its layers would take.
"""

import argparse
import importlib.util
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version

import torch
from torch import Tensor, nn

from benchmarks import common
from benchmarks.common import (
    bench_options,
    device_seconds,
    peak_bytes,
    report,
    wait_for,
)
from benchmarks.peers.eager_sparsegpt import EagerSparseGPT, parse_pattern
from rac_kernels import Pattern, factor_hessian, hessian_accumulate_, sparsegpt, symmetrize_

# R x C: the three (3584 x 9472 is a 7B down projection halved), and 1.5B's hidden square.
CPU_SHAPES = [(1536, 1536), (2048, 2048), (4096, 4096), (3584, 9472)]
# 1.5B hidden, 7B hidden, gate or up, and down; 14B down.
GPU_SHAPES = [(1536, 1536), (3584, 3584), (18944, 3584), (3584, 18944), (5120, 13824)]
PATTERNS = ("0.5", "2:4")
FIRST = 256  # side of a layer that only starts threads and loads libraries
# What the baselines of a row may take to be repeated: a column loop of a 7B's down takes 3 s on a
# GPU, of which there is little time.
BASELINE_SECONDS = {"cpu": 20, "cuda": 5}
# Decoder layers, and of each the linears that share an input: C and their R.
MODELS = {
    "smollm2-135m": (30, {576: [[576, 192, 192], [576], [1536, 1536]], 1536: [[576]]}),
    "7b": (28, {3584: [[3584, 512, 512], [3584], [18944, 18944]], 18944: [[3584]]}),
    "14b": (48, {5120: [[5120, 1024, 1024], [5120], [13824, 13824]], 13824: [[5120]]}),
    "32b": (64, {5120: [[5120, 1024, 1024], [5120], [27648, 27648]], 27648: [[5120]]}),
}


def random_hessian(columns: int, device: str) -> Tensor:
    """The Hessian [C, C] of 2C correlated tokens with uneven scales."""
    torch.manual_seed(0)
    hessian = torch.zeros(columns, columns, device=device)
    scale = 10 ** torch.linspace(-0.5, 0.5, columns, device=device)
    shared = torch.randn(64, columns, device=device)
    for _ in range(8):
        x = torch.randn(columns // 4, columns, device=device)
        x += torch.randn(columns // 4, 64, device=device) @ shared / 8
        hessian_accumulate_(hessian, x * scale)
    return symmetrize_(hessian)


def random_layer(rows: int, columns: int, device: str) -> tuple[Tensor, Tensor]:
    """A weight [R, C] and a Hessian [C, C]."""
    hessian = random_hessian(columns, device)
    return torch.randn(rows, columns, device=device), hessian


def eager(weight: Tensor, hessian: Tensor, pattern: str) -> Tensor:
    """The published algorithm on a layer whose Hessian is given."""
    layer = nn.Linear(*weight.shape[::-1], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    solver = EagerSparseGPT(layer)
    solver.hessian = hessian.clone()
    solver.prune(parse_pattern(pattern))
    return layer.weight.data


def output_error(weight: Tensor, pruned: Tensor, hessian: Tensor) -> float:
    """||(W - Q) X||_F by H."""
    change = pruned - weight
    return float(((change @ hessian) * change).sum(dtype=torch.float64).sqrt())


def llm_compressor(weight: Tensor, hessian: Tensor, pattern: Pattern) -> Tensor:
    """llm-compressor's solver on the same layer; H is handed over as its mean over 2C tokens."""
    from llmcompressor.modifiers.pruning.sparsegpt import sgpt_sparsify

    layer = nn.Linear(*weight.shape[::-1], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    sparsify = sgpt_sparsify.sparsify_weight
    n, m = (pattern.n, pattern.m) if pattern.structured else (0, 0)
    hessians = {layer: hessian / weight.shape[1]}
    return sparsify(layer, hessians, pattern.sparsity, n, m, 128, 0.01, False)[1]


def memory_apart(*layer: object) -> dict:
    """:func:`bench_memory` in a process of its own, whose heap has nothing left of other work."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(bench_memory, *layer).result()


def bench_memory(rows: int, columns: int, pattern: Pattern, device: str, threads: int) -> dict:
    """Peak memory of factor and solve."""
    torch.set_num_threads(threads)
    small, its_hessian = random_layer(FIRST, FIRST, device)
    sparsegpt(small, factor_hessian(its_hessian), pattern)
    weight, hessian = random_layer(rows, columns, device)

    def run(overwrite: bool) -> None:
        results.append(sparsegpt(weight, factor_hessian(hessian, overwrite=overwrite), pattern))

    inputs, results = weight.nbytes + hessian.nbytes, []
    extra = peak_bytes(lambda: run(False), device)
    kept = sum(part.nbytes for part in results.pop()[:2])
    scratch = peak_bytes(lambda: run(True), device)
    if extra is None or scratch is None:
        return {}
    return {
        "extra_over_inputs": extra / inputs,
        "scratch_over_inputs": (scratch - kept) / inputs,
    }


def bench(rows: int, columns: int, pattern: Pattern, options) -> dict:
    """Time the stages and the baselines in turns, compare their errors."""
    weight, hessian = random_layer(rows, columns, options.device)
    factor = factor_hessian(hessian)
    results = {}

    def keep(name: str, function: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: results.update({name: function()})

    size = common.MATMUL_SIZE[weight.device.type]
    a = torch.randn(size, size, device=options.device)
    ours = {
        "factor": lambda: factor_hessian(hessian),
        "solve": keep("ours", lambda: sparsegpt(weight, factor, pattern)[0]),
        "product": lambda: a @ a,
    }
    baselines = {"eager": keep("eager", lambda: eager(weight, hessian, str(pattern)))}
    if importlib.util.find_spec("llmcompressor"):
        baselines["llm"] = keep("llm", lambda: llm_compressor(weight, hessian, pattern))
    seconds = device_seconds(ours, options.repeats, options.device)
    budget = BASELINE_SECONDS[weight.device.type]
    seconds |= device_seconds(baselines, options.repeats, options.device, budget)
    ceiling = 2 * size**3 / seconds["product"] / 1e9
    error = {name: output_error(weight, pruned, hessian) for name, pruned in results.items()}
    assert error["ours"] <= error["eager"] * (1 + 1e-4), f"larger error: {error}"
    same = float(((results["eager"] != 0) == (results["ours"] != 0)).double().mean())
    results.clear()
    measure = bench_memory if weight.is_cuda else memory_apart
    memory = measure(rows, columns, pattern, options.device, options.threads)
    total = seconds["factor"] + seconds["solve"]
    floor = (columns**3 / 3 + rows * columns**2) / ceiling / 1e9
    row = {
        "op": "factor_hessian + sparsegpt",
        "device": options.device,
        "R": rows,
        "C": columns,
        "pattern": str(pattern),
        "time_ms": total * 1e3,
        "factor_ms": seconds["factor"] * 1e3,
        "solve_ms": seconds["solve"] * 1e3,
        "baseline": "chol + cholesky_inverse + chol + column loop, float32",
        "baseline_ms": seconds["eager"] * 1e3,
        "speedup": seconds["eager"] / total,
        "matmul_gflops": ceiling,
        "floor_ms": floor * 1e3,
        "over_floor": total / floor,
        "error_ratio": error["ours"] / error["eager"],
        "same_mask": same,
        **memory,
    }
    if "llm" in seconds:
        row["llm_compressor"] = version("llmcompressor")
        row["llm_compressor_ms"] = seconds["llm"] * 1e3
        row["llm_compressor_error_ratio"] = error["ours"] / error["llm"]
    return row


def bench_model(name: str, pattern: str, options: argparse.Namespace) -> dict:
    """Time the factors and solves of one decoder layer's linears, each the second time."""
    layers, groups = MODELS[name]
    seconds = {}
    for columns, stacks in groups.items():
        hessian = random_hessian(columns, options.device)
        for sizes in stacks:
            weights = [torch.randn(rows, columns, device=options.device) for rows in sizes]
            weights = [w.bfloat16() if hessian.is_cuda else w for w in weights]
            for _ in range(2):
                wait_for(options.device)
                start = time.perf_counter()
                factor = factor_hessian(hessian)
                sparsegpt(weights, factor, Pattern.parse(pattern))
                wait_for(options.device)
                seconds[f"{'+'.join(map(str, sizes))} x {columns}"] = time.perf_counter() - start
    return {
        "op": "factor_hessian + sparsegpt",
        "device": options.device,
        "model": name,
        "pattern": pattern,
        "groups_ms": {group: value * 1e3 for group, value in seconds.items()},
        "layer_ms": sum(seconds.values()) * 1e3,
        "layers": layers,
        "model_s": sum(seconds.values()) * layers,
    }


def main() -> None:
    parser = bench_options(__doc__)
    parser.add_argument("--model", choices=MODELS, help="one decoder layer of it, ours alone")
    parser.add_argument("--shape", type=int, nargs=2, metavar=("R", "C"), help="this shape alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.model:
        for pattern in PATTERNS:
            report(bench_model(options.model, pattern, options), options.out, "sparsegpt_model")
        return
    shapes = GPU_SHAPES if options.device.startswith("cuda") else CPU_SHAPES
    shapes = [options.shape] if options.shape else shapes
    for rows, columns in shapes[:1] if options.quick else shapes:
        for pattern in PATTERNS:
            row = bench(rows, columns, Pattern.parse(pattern), options)
            report(row, options.out, "sparsegpt")


if __name__ == "__main__":
    main()
