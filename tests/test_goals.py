"""Goals against rows: met, not met, not yet run, whatever else is in the files."""

import json

import pytest

from benchmarks.goal import Goal
from benchmarks.goal_list import GOALS
from benchmarks.goals import goals_table, judge

GOAL = Goal(
    "an op",
    "a baseline",
    "op",
    "baseline_ms/time_ms",
    1.5,
    {"dtype": "bfloat16"},
    {("R", "C"): ((2, 3), (4, 5)), "T": (1, 8)},
)
COST = Goal("a cost", "", "op", "overhead", 0.03, {}, {"T": (1, 8)}, most=True, unit="%")


def row(shape, tokens, ratio, **more):
    fixed = {"device": "cuda", "gpu": "NVIDIA H200", "dtype": "bfloat16", "impl": "native"}
    sizes = {"R": shape[0], "C": shape[1], "T": tokens}
    return fixed | sizes | {"time_ms": 2.0, "baseline_ms": 2.0 * ratio} | more


def write(folder, rows):
    (folder / "op.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


FOUR = [row(s, t, 1.5 + t / 10) for s in ((2, 3), (4, 5)) for t in (1, 8)]
CASES = {
    "all reach it": (FOUR, "met", 1.6),
    "none": ([], "not yet run", None),
    "a case is missing": (FOUR[:3], "not yet run", None),
    "one is short of it": ([*FOUR[:3], row((4, 5), 8, 1.49)], "not met", 1.49),
    "it was, and is not any more": ([row((2, 3), 1, 1.0), *FOUR], "met", 1.6),
    "another implementation is slower": ([*FOUR, row((2, 3), 1, 0.5, impl="slow")], "met", 1.6),
    "a CPU reaches it": ([r | {"device": "cpu"} for r in FOUR], "not yet run", None),
    "in another dtype": ([r | {"dtype": "float32"} for r in FOUR], "not yet run", None),
    "without a baseline": ([r | {"baseline_ms": None} for r in FOUR], "not yet run", None),
    "an older GPU did": ([*FOUR, row((2, 3), 1, 9, gpu="NVIDIA H300")], "not yet run", None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_ratio(name, tmp_path):
    rows, state, value = CASES[name]
    write(tmp_path, rows)
    verdict = judge(GOAL, tmp_path)
    assert verdict.state == state
    assert verdict.value == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(("second", "state"), [(0.029, "met"), (0.031, "not met")])
def test_a_cost_is_at_most(second, state, tmp_path):
    write(tmp_path, [row((1, 1), 1, 1, overhead=0.01), row((1, 1), 8, 1, overhead=second)])
    verdict = judge(COST, tmp_path)
    assert (verdict.state, COST.show(verdict.value)) == (state, f"{100 * second:.1f}%")


def test_the_table_has_every_goal_and_its_state(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.goals.GOALS", (GOAL, COST))
    write(tmp_path, [*FOUR, row((9, 9), 1, 1, overhead=0.5), row((9, 9), 8, 1, overhead=0.01)])
    assert goals_table(tmp_path).splitlines()[2:] == [
        "| an op | >= 1.50x | a baseline | 1.60x (NVIDIA H200) | met |",
        "| a cost | <= 3.0% |  | 50.0% (NVIDIA H200) | not met |",
    ]
    assert goals_table(tmp_path / "empty").count("not yet run") == 2


def test_goals_ask_for_what_the_benchmarks_measure():
    """Every case of every goal is a shape that its benchmark has on a GPU."""
    from benchmarks import (
        bench_decode,
        bench_factor,
        bench_hessian,
        bench_linear,
        bench_linear_cuda,
        bench_masks,
        bench_pack,
        bench_sparsegpt,
    )

    shapes = {
        "masks": bench_masks.GPU_SHAPES,
        "pack": bench_pack.GPU_SHAPES,
        "sparsegpt": bench_sparsegpt.GPU_SHAPES,
        "linear": bench_linear.SHAPES,
        "linear_cuda": bench_linear_cuda.SHAPES,
    }
    for goal in GOALS:
        assert set(goal.cases.get(("R", "C"), ())) <= set(shapes.get(goal.file, ())), goal
        if goal.file == "hessian":
            assert (goal.rows["D"], goal.rows["T"]) in bench_hessian.GPU_SHAPES
        if goal.file == "factor":
            assert goal.rows["C"] in bench_factor.GPU_SIZES
        if goal.file == "decode":
            assert set(goal.cases["B"]) <= set(bench_decode.BATCHES["cuda"])
            assert set(goal.cases["model"]) <= set(bench_decode.MODELS["cuda"])
        if goal.file == "linear":
            assert goal.rows["T"] in bench_linear.TOKENS["cuda"]
        if goal.file == "linear_cuda":
            assert set(goal.cases["T"]) <= set(bench_linear_cuda.TOKENS)
