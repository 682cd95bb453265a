"""What the benchmarks measure, small enough for an interpreter: their constants, replaced."""

import importlib
from types import ModuleType

SMALL: dict[str, dict[str, object]] = {
    "bench_hessian": {"GPU_SHAPES": [(512, 64), (515, 40)], "GPU_FLOAT_SHAPES": [(64, 32)]},
    "bench_capture": {
        "HIDDEN": {"cuda": (64,)},
        "FFN": {"cuda": (96,)},
        "BATCHES": {"cuda": (5,)},
        "CALLS": 3,
        "REPLAYS": {"cuda": 1},
    },
    "bench_decode": {
        "SHAPES": {"tiny": (32, 64, 3, 4, 2, 1024)},
        "MODELS": {"cuda": ("tiny",)},
        "BATCHES": {"cuda": (2,)},
        "PROMPT": {"cuda": 20},
        "STEPS": {"cuda": 3},
        "ROUNDS": 1,
    },
    "bench_sample": {"VOCABULARIES": (600,), "BATCHES": {"cuda": (2,)}},
    "bench_sparsegpt": {
        "GPU_SHAPES": [(48, 64), (32, 160)],
        "MODELS": {"7b": (2, {64: [[64, 16], [64]], 96: [[64]]}), "32b": (2, {64: [[64]]})},
    },
    "bench_factor": {"GPU_SIZES": (64, 130)},
    "bench_masks": {"GPU_SHAPES": [(24, 64), (16, 96)]},
    "bench_pack": {"GPU_SHAPES": [(64, 128)]},
    "bench_linear": {"SHAPES": [(64, 128)], "TOKENS": (1, 8)},
    "bench_linear_cuda": {"SHAPES": [(64, 128)], "TOKENS": (1, 8)},
    "bench_throughput": {
        "QWEN": "tiny",
        "LAYOUTS": {"first third": "first", "all": "all"},
        "BATCHES": (2,),
        "PROMPT": 8,
        "CHECKED": 3,
    },
}
# Bytes that are moved only to overrun a cache.
CACHE_BYTES = {"cpu": 1.0, "cuda": 1.0}


def reduce_shapes(name: str) -> ModuleType | None:
    """Import a benchmark with small shapes; None: it is none."""
    if not name.startswith("benchmarks."):
        return None
    module = importlib.import_module(name)
    for part in dict.fromkeys(["bench_decode", name.removeprefix("benchmarks.")]):
        changed = importlib.import_module(f"benchmarks.{part}")  # the shapes of models are there
        for constant, value in SMALL.get(part, {}).items():
            assert hasattr(changed, constant), f"{part} has no {constant}"
            setattr(changed, constant, value)
    if hasattr(module, "CACHE_BYTES"):
        module.CACHE_BYTES = CACHE_BYTES if isinstance(module.CACHE_BYTES, dict) else 1.0
    common = importlib.import_module("benchmarks.common")
    common.MATMUL_SIZE, common.COPY_BYTES = {"cuda": 64}, {"cuda": 1 << 16}
    return module
