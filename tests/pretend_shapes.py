"""What the benchmarks measure, small enough for an interpreter: their constants, replaced."""

import importlib
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import torch

NAMES = [f"R1-Distill-Qwen-{size}" for size in ("1.5B", "7B", "14B")]
SMALL: dict[str, dict[str, object]] = {
    "bench_hessian": {"GPU_SHAPES": [(512, 64), (515, 40)], "GPU_FLOAT_SHAPES": [(64, 32)]},
    "bench_ceilings": {"NODES": 3},
    "tune": {
        "HESSIANS": {"wide": ((72, 40, torch.bfloat16),), "float32": ((64, 20, torch.float32),)},
        "SOLVES": ((24, 64),),
        "FACTORS": (64,),
    },
    # Of the steps the first is eager, the second recorded, the third replayed.
    "bench_model": {"WHOLE": 1000, "TOKENS": 30, "PROMPT": 9, "BATCH": 2, "WARM_UP": 3},
    "bench_embedded": {
        "PATTERNS": ("2:4",),
        "CALIBRATIONS": ("rac",),
        "RESULTS": Path("no such folder"),  # an accuracy of two problems agrees with nothing
        **{"TOKENS": 60, "PROBLEMS": 2, "NEW_TOKENS": 3, "BATCH": 2},
    },
    "bench_capture": {
        "HIDDEN": {"cuda": (64,)},
        "FFN": {"cuda": (96,)},
        "BATCHES": {"cuda": (5,)},
        "CALLS": 3,
        "REPLAYS": {"cuda": 1},
    },
    "bench_decode": {
        # All are the same code: the first is wide enough for fp8, the second has a second layer.
        "SHAPES": {
            NAMES[0]: (64, 128, 1, 4, 2, 1024),
            NAMES[1]: (32, 64, 2, 4, 2, 1024),
            NAMES[2]: (32, 64, 1, 4, 2, 1024),
        },
        "BATCHES": {"cuda": (2,)},
        "PROMPT": {"cuda": 20},
        "STEPS": {"cuda": 2},
        "ROUNDS": 1,
        "WARM_UP": 2,
    },
    "bench_sample": {"VOCABULARIES": (600,), "BATCHES": {"cuda": (2,)}},
    "bench_sparsegpt": {
        "GPU_SHAPES": [(48, 64), (32, 132)],
        "FIRST": 32,
        "MODELS": {"7b": (2, {64: [[64, 16], [64]], 96: [[64]]}), "32b": (2, {64: [[64]]})},
    },
    "bench_factor": {"GPU_SIZES": (64, 130)},
    "bench_masks": {"GPU_SHAPES": [(24, 64), (16, 96)]},
    "bench_pack": {"GPU_SHAPES": [(64, 128)]},
    "bench_linear": {"SHAPES": [(64, 128)], "TOKENS": {"cuda": (1, 8, 70)}},
    "bench_linear_cuda": {"SHAPES": [(64, 128)], "TOKENS": (1, 8)},
    "bench_throughput": {
        "PROMPT": 8,
        "CHECKED": 3,
    },
}
STAGED = 32  # rows of a ring: a flush is a program for every tile and 32 tokens
# Bytes that are moved only to overrun a cache.
CACHE_BYTES = {"cpu": 1.0, "cuda": 1.0}


def reduce_shapes(name: str) -> ModuleType | None:
    """Import a benchmark with small shapes; None: it is none."""
    if not name.startswith("benchmarks."):
        return None
    module = importlib.import_module(name)
    for part, constants in SMALL.items():
        changed = sys.modules.get(f"benchmarks.{part}")  # what others import of it is small too
        for constant, value in constants.items() if changed else ():
            assert hasattr(changed, constant), f"{part} has no {constant}"
            setattr(changed, constant, value)
    if hasattr(module, "MODEL"):
        from conftest import save_source

        folder = Path(tempfile.mkdtemp(prefix="rac-tiny-"))
        module.MODEL = str(save_source(folder, num_hidden_layers=1))
    if hasattr(module, "CACHE_BYTES"):
        module.CACHE_BYTES = CACHE_BYTES if isinstance(module.CACHE_BYTES, dict) else 1.0
    if capture := sys.modules.get("rac.calibration.capture"):
        capture.STAGED_TOKENS["cuda"] = STAGED
    common = importlib.import_module("benchmarks.common")
    common.MATMUL_SIZE, common.COPY_BYTES = {"cuda": 64}, {"cuda": 1 << 16}
    return module
