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

from benchmarks.goal import Goal
from benchmarks.goal_list import GOALS
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
