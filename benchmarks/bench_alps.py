"""ALPS against SparseGPT: seconds and output error, on the embedded model's layers and larger ones.

    python -m benchmarks.bench_alps [--device cuda] [--threads N] [--out benchmarks/results]

A row is a shape. The embedded model's layers are pruned by the Hessians of problems that it was
trained to solve, and share a row where they share a shape; the larger layers are synthetic. The
baseline is our own factor_hessian + sparsegpt, the error `||(W - Q) X||_F` by the undamped H in
float64, and no layer's may be above the baseline's. `eigh_ms` is the float64 eigendecomposition of
H that the paper's form of the algorithm starts with, and ours does without.
"""

from collections import defaultdict
from itertools import islice
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.bench_sparsegpt import random_layer
from benchmarks.common import bench_options, matmul_gflops, median_seconds, report
from rac.assets.problems import generate_problems
from rac.calibration import HessianCollector, Sequence, batches, collect_in_one_pass, find_groups
from rac.models import get_weight, linears, load_model, load_tokenizer
from rac.prompts import render
from rac_kernels import Pattern, alps, factor_hessian, sparsegpt, symmetrize_

PROBLEMS = 64
PATTERNS = ("0.6", "0.7", "2:4")
# R x C of SmolLM2-135M's gate and down projection, and a square.
SHAPES = [(1536, 576), (576, 1536), (2048, 2048)]

Layer = tuple[Tensor, Tensor]  # weight [R, C], full H [C, C]


def embedded_layers(device: str) -> list[Layer]:
    """Every linear of the embedded model and the Hessian of what it reads."""
    model, tokenizer = load_model("embedded", device, "float32"), load_tokenizer("embedded")
    problems = islice(generate_problems("calibration"), PROBLEMS)
    texts = [(render(tokenizer, p.prompt), tokenizer(p.response).input_ids) for p in problems]
    groups = find_groups(model)
    collector = HessianCollector(model, groups)
    collect_in_one_pass(collector, list(batches([Sequence(a + b, len(a)) for a, b in texts])))
    modules, layers = linears(model), []
    for group in groups:
        hessian = symmetrize_(collector.hessian(group.name))
        layers += [(get_weight(modules[name]), hessian) for name in group.linears]
    return layers


def output_error(weight: Tensor, pruned: Tensor, hessian: Tensor) -> float:
    """||(W - Q) X||_F by H, in float64."""
    change = weight.double() - pruned.double()
    return float(((change @ hessian.double()) * change).sum().sqrt())


def bench(layers: list[Layer], pattern: Pattern, options, ceiling: float) -> dict:
    """Check the errors of layers of one shape, then time both on the middle one."""
    ratios = []
    for weight, hessian in layers:
        ours = alps(weight, hessian, pattern)[0]
        theirs = sparsegpt(weight, factor_hessian(hessian), pattern)[0]
        ratio = output_error(weight, ours, hessian) / output_error(weight, theirs, hessian)
        assert ratio <= 1, f"{tuple(weight.shape)} {pattern}: error {ratio} of SparseGPT's"
        ratios.append(ratio)
    weight, hessian = layers[len(layers) // 2]
    seconds = median_seconds(
        {
            "alps": lambda: alps(weight, hessian, pattern),
            "sparsegpt": lambda: sparsegpt(weight, factor_hessian(hessian), pattern),
            "eigh": lambda: torch.linalg.eigh(hessian.double()),
        },
        options.repeats,
        options.device,
    )
    return {
        "op": "alps",
        "device": options.device,
        "layers": len(layers),
        "R": weight.shape[0],
        "C": weight.shape[1],
        "pattern": str(pattern),
        "time_ms": seconds["alps"] * 1e3,
        "baseline": "factor_hessian + sparsegpt",
        "baseline_ms": seconds["sparsegpt"] * 1e3,
        "times_baseline": seconds["alps"] / seconds["sparsegpt"],
        "eigh_ms": seconds["eigh"] * 1e3,
        "product_ms": 2 * weight.numel() * weight.shape[1] / ceiling / 1e6,
        "matmul_gflops": ceiling,
        "error_ratio": fmean(ratios),
        "largest_error_ratio": max(ratios),
    }


def main() -> None:
    options = bench_options(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    ceiling = matmul_gflops(device=options.device)
    shapes: dict[tuple[int, ...], list[Layer]] = defaultdict(list)
    for layer in embedded_layers(options.device):
        shapes[tuple(layer[0].shape)].append(layer)
    for rows, columns in () if options.quick else SHAPES:
        shapes[rows, columns] = [random_layer(rows, columns, options.device)]
    for layers in shapes.values():
        for pattern in PATTERNS:
            report(bench(layers, Pattern.parse(pattern), options, ceiling), options.out, "alps")


if __name__ == "__main__":
    main()
