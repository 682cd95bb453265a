"""Goals against rows: met, not met, not yet run, whatever else is in the files."""

import dataclasses
import json

import pytest

from benchmarks.cpu_goals import CPU_GOALS
from benchmarks.goal import Goal
from benchmarks.goal_list import GOALS
from benchmarks.goals import goals_table, judge, short_cpu_goals_table

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
    "another GPU ran a part": ([*FOUR, row((2, 3), 1, 9, gpu="NVIDIA H300")], "met", 1.6),
}


@pytest.mark.parametrize("name", CASES)
def test_a_ratio(name, tmp_path):
    rows, state, value = CASES[name]
    write(tmp_path, rows)
    (verdict,) = judge(GOAL, tmp_path)
    assert verdict.state == state
    assert verdict.value == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(("second", "state"), [(0.029, "met"), (0.031, "not met")])
def test_a_cost_is_at_most(second, state, tmp_path):
    write(tmp_path, [row((1, 1), 1, 1, overhead=0.01), row((1, 1), 8, 1, overhead=second)])
    (verdict,) = judge(COST, tmp_path)
    assert (verdict.state, COST.show(verdict.value)) == (state, f"{100 * second:.1f}%")


def test_the_table_has_every_goal_and_its_state(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.goals.GOALS", (GOAL, COST))
    write(tmp_path, [*FOUR, row((9, 9), 1, 1, overhead=0.5), row((9, 9), 8, 1, overhead=0.01)])
    at = "1.60x | 2 x 3, T = 1 | 2.30x"
    assert goals_table(tmp_path).splitlines()[2:4] == [
        f"| an op | >= 1.50x | a baseline | {at} | NVIDIA H200 | met |",
        "| a cost | <= 3.0% |  | 50.0% | T = 1 | 1.0% | NVIDIA H200 | not met |",
    ]
    assert goals_table(tmp_path / "empty").count("not yet run") == 3  # and compute-sanitizer


ON_CPU = [r | {"device": "cpu", "gpu": None, "cpu": "Some x 4", "threads": 2} for r in FOUR]
MISSING = ("not yet run", None, None)
CPU_CASES = {
    "all reach it": (ON_CPU, "met", 1.6, 2.3),
    "the newest does not": ([*ON_CPU, ON_CPU[3] | {"time_ms": 4.0}], "not met", 1.15, 2.3),
    "it lacks the baseline": ([*ON_CPU, ON_CPU[3] | {"baseline_ms": None}], *MISSING),
    "another ran a part": ([ON_CPU[0] | {"cpu": "Other x 4"}, *ON_CPU], "met", 1.6, 2.3),
    "one thread": ([r | {"threads": 1} for r in ON_CPU], *MISSING),
    "a GPU": (FOUR, *MISSING),
}


@pytest.mark.parametrize("name", CPU_CASES)
def test_on_a_cpu(name, tmp_path):
    rows, state, worst, best = CPU_CASES[name]
    write(tmp_path, rows)
    goal = dataclasses.replace(GOAL, device="cpu", rows=GOAL.rows | {"threads": 2})
    (verdict,) = judge(goal, tmp_path)
    expected = (worst, best) if worst is None else pytest.approx((worst, best))
    assert (verdict.state, (verdict.value, verdict.best)) == (state, expected)
    assert verdict.machine in ("", f"{rows[-1].get('cpu', '').split(' x')[0]} CPU, 2 threads")


def test_each_machine_is_judged_by_itself(tmp_path):
    slower = [r | {"cpu": "Other x 4", "time_ms": 4.0, "instruction_set": "amx"} for r in ON_CPU]
    write(tmp_path, [*ON_CPU, *slower])
    verdicts = judge(dataclasses.replace(GOAL, device="cpu"), tmp_path)
    assert [(v.state, v.machine) for v in verdicts] == [
        ("met", "Some CPU, 2 threads"),
        ("not met", "Other (AMX) CPU, 2 threads"),
    ]


def test_the_short_table_has_the_same(tmp_path, monkeypatch):
    goal = dataclasses.replace(GOAL, device="cpu")
    monkeypatch.setattr("benchmarks.goals.CPU_GOALS", (goal, dataclasses.replace(goal, file="no")))
    write(tmp_path, ON_CPU)
    assert short_cpu_goals_table(tmp_path).splitlines()[2:] == [
        "| an op | >= 1.50x | 1.60x | 2.30x | Some | met |",
        "| an op | >= 1.50x |  |  |  | not yet run |",
    ]


SANITIZER = "a sanitize-memcheck ok\na sanitize-racecheck {}\n"


@pytest.mark.parametrize(
    ("parts", "state"),
    [
        (SANITIZER.format("ok"), "met"),
        (SANITIZER.format("failed"), "not met"),
        (SANITIZER.format("failed") + "b sanitize-racecheck ok\n", "met"),
        ("a sanitize-memcheck ok\n", "not yet run"),
    ],
)
def test_compute_sanitizer_is_what_gpu_sh_says(parts, state, tmp_path):
    (tmp_path / "gpu_parts.txt").write_text(parts)
    assert goals_table(tmp_path).splitlines()[-1].endswith(f"| {state} |")


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
            assert goal.rows["T"] in bench_linear.TOKENS
        if goal.file == "linear_cuda":
            assert set(goal.cases["T"]) <= set(bench_linear_cuda.TOKENS)


def test_cpu_goals_ask_for_what_the_benchmarks_measure():
    from benchmarks import (
        bench_factor,
        bench_linear,
        bench_pack,
        bench_sparsegpt,
        bench_throughput,
    )

    shapes = {
        "pack": bench_pack.CPU_SHAPES,
        "sparsegpt": bench_sparsegpt.CPU_SHAPES,
        "linear": bench_linear.SHAPES,
    }
    for goal in CPU_GOALS:
        assert goal.device == "cpu"
        assert set(goal.cases.get(("R", "C"), ())) <= set(shapes.get(goal.file, ())), goal
        if goal.file == "factor":
            assert goal.rows["C"] in bench_factor.CPU_SIZES
        if goal.file == "linear":
            assert goal.rows["T"] in bench_linear.TOKENS
            assert set(goal.cases["R", "C"]) == set(bench_linear.SHAPES)
        if goal.file == "throughput":
            assert goal.rows["layout"] in bench_throughput.LAYOUTS
            assert goal.rows["format"] in bench_throughput.FORMATS
            assert goal.rows["B"] in bench_throughput.BATCHES
