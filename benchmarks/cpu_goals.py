"""The goals on a CPU: two threads, each against torch on the same machine in the same run."""

from functools import partial

from benchmarks.goal import Goal, shapes
from benchmarks.goal_list import FFN

goal = partial(Goal, device="cpu")
TWO = {"threads": 2}
LAYERS = ((2048, 2048), (4096, 4096), (3584, 9472))
BOTH = shapes(*LAYERS) | {"pattern": ("0.5", "2:4")}
EIGHT = shapes((8960, 1536), (1536, 8960), *FFN)
MODELS = {"R1-Distill-Qwen-1.5B": 28, "SmolLM2-135M": 30}
EAGER = "the eager algorithm in torch (three factorisations, column loop)"
DENSE = "torch's dense bf16, the better of `F.linear` and `mm`"
OVER_BF16 = "dense_bfloat16_ms/time_ms"
READ = "reading memory"


def tokens(count: int) -> str:
    """A number of tokens for people."""
    return "1 token" if count == 1 else f"{count} tokens"


def linear(op: str, name: str, count: int, value: str, wanted: float) -> Goal:
    """A sparse linear over the ffn shapes."""
    against, unit = (DENSE, "x") if value == OVER_BF16 else (READ, "%")
    what = f"{name} linear, {tokens(count)}, every ffn shape" + ("" if unit == "x" else ": bytes/s")
    return goal(
        what, against, "linear", value, wanted, TWO | {"op": op, "T": count}, EIGHT, unit=unit
    )


CPU_GOALS = (
    goal(
        "factor of H, C = 4096",
        "three factorisations in float32",
        "factor",
        "speedup",
        3.5,
        TWO | {"C": 4096},
    ),
    *(
        goal(
            f"factor and solve of a layer, {name}",
            EAGER,
            "sparsegpt",
            "speedup",
            wanted,
            TWO | {"pattern": pattern},
            shapes(*LAYERS),
        )
        for name, pattern, wanted in (("50%", "0.5", 5), ("2:4", "2:4", 6))
    ),
    goal(
        "factor and solve of a layer, 50% and 2:4: time",
        "the floor: C^3/3 + R C^2 flops at the matrix product's rate",
        "sparsegpt",
        "over_floor",
        1.5,
        TWO,
        BOTH,
        most=True,
    ),
    goal(
        "factor and solve of a layer, 50% and 2:4: scratch memory",
        "W and H",
        "sparsegpt",
        "scratch_over_inputs",
        0.15,
        TWO,
        BOTH,
        most=True,
        unit="%",
    ),
    *(linear("linear_2to4", "2:4", count, OVER_BF16, 3) for count in (1, 2, 4)),
    *(linear("linear_2to4", "2:4", count, "of_readable", 0.85) for count in (1, 2, 4)),
    *(linear("linear_bitmap", "bitmap", count, OVER_BF16, 2) for count in (1, 2, 4)),
    *(
        goal(
            f"decoding, all of {model} packed, {format}, batch 1",
            "torch's bf16 linears",
            "throughput",
            "over_torch_bf16",
            2,
            TWO | {"model": model, "layers": layers, "layout": "all", "format": format, "B": 1},
        )
        for model, layers in MODELS.items()
        for format in ("2:4", "2:4-fp8", "bitmap")
    ),
    goal(
        "2:4 packing of bf16",
        "torch's conversion",
        "pack",
        "baseline_ms/time_ms",
        5,
        TWO | {"op": "pack_2to4", "dtype": "bfloat16"},
        shapes((4096, 4096), (3584, 3584), (18944, 3584)),
    ),
)
