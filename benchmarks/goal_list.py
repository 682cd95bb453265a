"""The goals on a GPU, kernel by kernel (K1 to K5), and of whole models."""

from benchmarks.goal import Goal, shapes

FFN = [(18944, 3584), (3584, 18944), (13824, 5120), (5120, 13824), (27648, 5120), (5120, 27648)]
FEW = (1, 4, 8, 16, 32, 64)
MM_ADD = "`torch.mm(x.T, x, out_dtype=float32)` + `add_`"


def hessian(tokens: int, features: int, wanted: float, against: str = MM_ADD) -> Goal:
    """A rank-k update in bf16."""
    value = "mm_add_ms/time_ms" if against == MM_ADD else "speedup"
    rows = {"D": features, "T": tokens, "dtype": "bfloat16", "impl": "triton"}
    what = f"K1 Hessian update, D = {features}, T = {tokens}"
    return Goal(what, against, "hessian", value, wanted, rows)


SPARSEGPT = {"cases": shapes((18944, 3584), (5120, 13824)) | {"pattern": ("0.5", "2:4")}}
MASKS = {"file": "masks", "cases": shapes((3584, 3584), (18944, 3584), (3584, 18944))}
PACKS = shapes((3584, 3584), (18944, 3584), (3584, 18944), (5120, 27648))
BF16 = {"dtype": "bfloat16"}
SEVEN = {"model": "R1-Distill-Qwen-7B"}
GOALS = (
    hessian(131072, 5120, 1.75),
    hessian(131072, 18944, 1.9),
    hessian(4096, 5120, 2.2),
    hessian(131072, 18944, 20, "`H += X.T @ X` in float32"),
    Goal(
        "K1b capture while decoding under CUDA graphs, batch 1 to 64",
        "decoding without it",
        "decode",
        "overhead",
        0.03,
        {"graphs": True},
        {"model": ("R1-Distill-Qwen-1.5B", "R1-Distill-Qwen-7B"), "B": (1, 16, 64)},
        most=True,
        unit="%",
    ),
    *(
        Goal(
            f"K2 factor, C = {c}",
            "three factorisations in float32",
            "factor",
            "speedup",
            w,
            {"C": c},
        )
        for c, w in ((5120, 3), (18944, 12))
    ),
    Goal(
        "K3 factor and solve, 7B gate/up and 14B down",
        "the eager column loop",
        "sparsegpt",
        "speedup",
        20,
        **SPARSEGPT,
    ),
    *(
        Goal(
            f"K2 + K3 every layer of a {model.upper()}, by one layer",
            "",
            "sparsegpt_model",
            "model_s",
            seconds,
            {"model": model},
            {"pattern": ("0.5", "2:4")},
            most=True,
            unit=" s",
        )
        for model, seconds in (("7b", 5), ("32b", 40))
    ),
    *(
        Goal(
            f"K4 {pattern} masks of bf16 scores",
            "copying",
            value="of_copy",
            wanted=wanted,
            rows=BF16 | {"op": "select_mask", "pattern": pattern},
            unit="%",
            **MASKS,
        )
        for pattern, wanted in (("2:4", 0.8), ("0.5", 0.65))
    ),
    Goal(
        "K4 a share of each row",
        "a stable sort of each row",
        value="speedup",
        wanted=20,
        rows=BF16 | {"op": "select_mask", "pattern": "0.5"},
        **MASKS,
    ),
    Goal(
        "K4 score, mask and 2:4 packing in one pass",
        "a kernel for each",
        "pack",
        "separate_ms/time_ms",
        1.7,
        BF16 | {"op": "mask_and_pack_2to4"},
        PACKS,
    ),
    Goal(
        "K5 2:4 packing",
        "copying",
        "pack",
        "of_copy",
        0.7,
        BF16 | {"op": "pack_2to4"},
        PACKS,
        unit="%",
    ),
    Goal(
        "K5 2:4 packing",
        "`torch._cslt_compress`",
        "pack",
        "cslt_ms/time_ms",
        5,
        BF16 | {"op": "pack_2to4"},
        PACKS,
    ),
    Goal(
        "K5 2:4 linear, 4096 tokens, every ffn shape",
        "the best dense bf16 linear",
        "linear",
        "speedup",
        1.6,
        {"op": "linear_2to4", "T": 4096},
        shapes(*FFN),
    ),
    *(
        Goal(
            f"K5 2:4 linear, 1 to 64 tokens, every ffn shape, {step}",
            "the best dense bf16 linear under CUDA graphs",
            "linear_cuda",
            "speedup",
            wanted,
            {"op": "linear_2to4"},
            shapes(*FFN) | {"T": FEW},
        )
        for step, wanted in (("first step", 1.3), ("in the end", 1.5))
    ),
    Goal(
        "K5 2:4 linear in fp8, 1 to 64 tokens, every ffn shape, rounding x included",
        "the best dense bf16 linear under CUDA graphs",
        "linear_cuda",
        "speedup",
        2.0,
        {"op": "linear_2to4_fp8"},
        shapes(*FFN) | {"T": FEW},
    ),
    Goal(
        "K5 bitmap linear, 1 to 64 tokens, every ffn shape",
        "the best dense bf16 linear under CUDA graphs",
        "linear_cuda",
        "speedup",
        1.0,
        {"op": "linear_bitmap"},
        shapes(*FFN) | {"T": FEW},
    ),
    Goal(
        "decoding, all of a 1.5B packed, batch 1 and 16",
        "the best dense model, bf16 or float32",
        "throughput",
        "speedup",
        1.0,
        {"model": "R1-Distill-Qwen-1.5B", "layers": 28, "layout": "all"},
        {"format": ("2:4", "2:4-fp8", "bitmap"), "B": (1, 16)},
    ),
    Goal(
        "a 7B pruned on 1M tokens: decoding, solving, packing",
        "",
        "model",
        "seconds",
        300,
        SEVEN | {"stage": "total"},
        {"pattern": ("0.5", "2:4")},
        most=True,
        unit=" s",
    ),
    Goal(
        "of it, what capture costs of the tokens/s",
        "decoding without it",
        "model",
        "overhead",
        0.03,
        SEVEN | {"stage": "total"},
        {"pattern": ("0.5",)},
        most=True,
        unit="%",
    ),
    Goal(
        "of it, factor and solve of every layer",
        "",
        "model",
        "seconds",
        5,
        SEVEN | {"stage": "solve"},
        {"pattern": ("0.5", "2:4")},
        most=True,
        unit=" s",
    ),
    Goal(
        "the embedded reasoner pruned on the GPU has the CPU's accuracies",
        "the demo's run",
        "embedded",
        "agrees",
        1,
        {"dtype": "float32"},
        {"calibration": ("text", "prompt", "rac"), "pattern": ("0.5", "0.6", "2:4")},
    ),
)
