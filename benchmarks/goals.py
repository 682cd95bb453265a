"""What a GPU should reach, as data: which rows prove a goal, and whether they do.

    python -m benchmarks.goals [--results benchmarks/results]

A goal is met where every one of its cases has a row on a GPU and the worst of them reaches what is
wanted. Of the rows of one case (several implementations) the best counts, as "auto" would take it;
of rows of one implementation the newest. Where rows of several GPUs are there, those of the newest.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path

from benchmarks.rows import latest, markdown, read_results

MEASURE = (
    "impl",
    "op",
    "dtype",
    "D",
    "T",
    "R",
    "C",
    "B",
    "pattern",
    "model",
    "stage",
    "calibration",
)
FFN = [(18944, 3584), (3584, 18944), (13824, 5120), (5120, 13824), (27648, 5120), (5120, 27648)]
FEW = (1, 4, 8, 16, 32, 64)
MM_ADD = "`torch.mm(x.T, x, out_dtype=float32)` + `add_`"


@dataclasses.dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes:
        what: the op and its shapes, for people.
        against: the baseline of the ratio.
        file: results/<file>.jsonl has the rows.
        rows: fields that all of them have.
        cases: fields by which they differ: each combination has to be there.
        value: a field, or "a/b": one over the other.
        wanted: the least, or with `most` the most.
        unit: after the number: "x", "%" (of the value times 100), " s".
    """

    what: str
    against: str
    file: str
    value: str
    wanted: float
    rows: dict = dataclasses.field(default_factory=dict)
    cases: dict = dataclasses.field(default_factory=dict)
    most: bool = False
    unit: str = "x"

    def of(self, row: dict) -> float | None:
        """The value of a row; None where it lacks a part of it."""
        parts = [row.get(name) for name in self.value.split("/")]
        if any(part is None for part in parts):
            return None
        return float(parts[0]) if len(parts) == 1 else parts[0] / parts[1]

    def show(self, value: float) -> str:
        """A number with its unit."""
        if self.unit == "%":
            return f"{100 * value:.1f}%"
        return f"{value:.2f}{self.unit}"


def hessian(tokens: int, features: int, wanted: float, against: str = MM_ADD) -> Goal:
    """A rank-k update in bf16."""
    value = "mm_add_ms/time_ms" if against == MM_ADD else "speedup"
    rows = {"D": features, "T": tokens, "dtype": "bfloat16", "impl": "triton"}
    what = f"K1 Hessian update, D = {features}, T = {tokens}"
    return Goal(what, against, "hessian", value, wanted, rows)


def shapes(*pairs: tuple[int, int]) -> dict:
    """Cases of R x C."""
    return {("R", "C"): pairs}


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


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`state` is "met", "not met" or "not yet run"; value and GPU are of the worst case."""

    state: str
    value: float | None = None
    gpu: str = ""


def judge(goal: Goal, folder: Path) -> Verdict:
    """Compare a goal with the rows in `folder`."""
    rows = [r for r in read_results(folder, goal.file) if str(r.get("device")).startswith("cuda")]
    rows = [r for r in rows if all(r.get(k) == v for k, v in goal.rows.items())]
    rows = [r for r in rows if goal.of(r) is not None]
    if not rows:
        return Verdict("not yet run")
    gpu = rows[-1]["gpu"]
    rows = latest((row for row in rows if row["gpu"] == gpu), *MEASURE)
    better, worse = (min, max) if goal.most else (max, min)
    bests = []
    for case in itertools.product(*goal.cases.values()):
        fields: dict = {}
        for name, value in zip(goal.cases, case, strict=True):
            fields |= (
                dict(zip(name, value, strict=True)) if isinstance(name, tuple) else {name: value}
            )
        found = [goal.of(r) for r in rows if all(r.get(k) == v for k, v in fields.items())]
        if not found:
            return Verdict("not yet run", gpu=gpu)
        bests.append(better(found))
    worst = worse(bests)
    reached = worst <= goal.wanted if goal.most else worst >= goal.wanted
    return Verdict("met" if reached else "not met", worst, gpu)


def goals_table(folder: Path) -> str:
    """Every goal beside its measured value."""
    lines = []
    for goal in GOALS:
        verdict = judge(goal, folder)
        measured = "" if verdict.value is None else f"{goal.show(verdict.value)} ({verdict.gpu})"
        wanted = f"{'<=' if goal.most else '>='} {goal.show(goal.wanted)}"
        lines.append([goal.what, wanted, goal.against, measured, verdict.state])
    return markdown("what|goal>|against|worst measured|", lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(__file__).resolve().parent / "results"
    parser.add_argument("--results", type=Path, default=folder)
    print(goals_table(parser.parse_args().results))


if __name__ == "__main__":
    main()
