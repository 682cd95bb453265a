"""What a GPU and a CPU should reach, as data: which rows prove a goal, and whether they do.

    python -m benchmarks.goals [--device cpu] [--results benchmarks/results]

A goal is met where every one of its cases has a row on its device and the worst of them reaches
what is wanted. Of the rows of one case (several implementations) the best counts, as "auto" would
take it; of rows of one implementation the newest. Each machine that ran all cases is judged by
itself.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.cpu_goals import CPU_GOALS
from benchmarks.goal import Goal
from benchmarks.goal_list import GOALS
from benchmarks.rows import latest, machine_of, markdown, read_results

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
    "layers",
    "layout",
    "format",
    "stage",
    "calibration",
)
SANITIZED = ("sanitize-memcheck", "sanitize-racecheck")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`state` is "met", "not met" or "not yet run".

    `value` is that of the worst case and `at` says which that is, `best` that of the best case;
    `machine` is the GPU, or the processor and its threads.
    """

    state: str
    value: float | None = None
    machine: str = ""
    at: str = ""
    best: float | None = None


def cases_of(goal: Goal) -> Iterator[dict]:
    """The fields of every case; one without fields where a goal has none."""
    for case in itertools.product(*goal.cases.values()):
        fields: dict = {}
        for name, value in zip(goal.cases, case, strict=True):
            fields |= (
                dict(zip(name, value, strict=True)) if isinstance(name, tuple) else {name: value}
            )
        yield fields


def case_text(fields: dict) -> str:
    """A case for people: "3584 x 9472, 2:4"."""
    shape = [f"{fields['R']} x {fields['C']}"] if "R" in fields else []
    others = (f"{k} = {v}" if len(k) == 1 else str(v) for k, v in fields.items() if k not in "RC")
    return ", ".join([*shape, *others])


def judge(goal: Goal, folder: Path) -> list[Verdict]:
    """Compare a goal with the rows in `folder`: a verdict for each machine that ran all of it."""
    rows = [row for row in read_results(folder, goal.file) if goal.measured_by(row)]
    machines = dict.fromkeys(machine_of(row) for row in rows if goal.of(row) is not None)
    found = [
        judge_machine(goal, machine, [row for row in rows if machine_of(row) == machine])
        for machine in machines
    ]
    return [v for v in found if v.value is not None] or found[-1:] or [Verdict("not yet run")]


def judge_machine(goal: Goal, machine: str, rows: list[dict]) -> Verdict:
    """The same for the rows of one machine."""
    rows = latest(rows, *MEASURE)
    better, worse = (min, max) if goal.most else (max, min)
    values: dict[str, float] = {}
    for fields in cases_of(goal):
        of_case = (goal.of(r) for r in rows if all(r.get(k) == v for k, v in fields.items()))
        found = [value for value in of_case if value is not None]
        if not found:
            return Verdict("not yet run", machine=machine)
        values[case_text(fields)] = better(found)
    at = worse(values, key=values.get)
    reached = values[at] <= goal.wanted if goal.most else values[at] >= goal.wanted
    state = "met" if reached else "not met"
    return Verdict(state, values[at], machine, at, better(values.values()))


def sanitizer_row(folder: Path) -> list[str]:
    """The cells of compute-sanitizer: gpu.sh's newest word on each of its tools."""
    path = folder / "gpu_parts.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    words = {part: word for _, part, word in map(str.split, lines)}
    found = {words.get(part) for part in SANITIZED}
    state = "not yet run" if None in found else "met" if found == {"ok"} else "not met"
    what = "compute-sanitizer, memcheck and racecheck, over the CUDA kernels' tests"
    return [what, "no finding", "", "", "", "", "", state]


def judged(folder: Path, device: str) -> list[tuple[Goal, Verdict]]:
    """Every goal of a device and what the rows say of it, machine by machine."""
    goals = (goal for goal in (*GOALS, *CPU_GOALS) if goal.device == device)
    return [(goal, verdict) for goal in goals for verdict in judge(goal, folder)]


def wanted_text(goal: Goal) -> str:
    """What is wanted, with its sign."""
    return f"{'<=' if goal.most else '>='} {goal.show(goal.wanted)}"


def goals_table(folder: Path, device: str = "cuda") -> str:
    """Every goal of a device beside what was measured in its worst and its best case."""
    lines = []
    for goal, verdict in judged(folder, device):
        cells = [goal.what, wanted_text(goal), goal.against]
        if verdict.value is None:
            cells += [""] * 4
        else:
            cells += [goal.show(verdict.value), verdict.at, goal.show(verdict.best)]
            cells.append(verdict.machine)
        lines.append([*cells, verdict.state])
    if device == "cuda":
        lines.append(sanitizer_row(folder))
    return markdown("what|goal>|against|worst>|where|best>|on|", lines)


def cpu_goals_table(folder: Path) -> str:
    """Every goal on a CPU."""
    return goals_table(folder, "cpu")


def short_cpu_goals_table(folder: Path) -> str:
    """The same in few columns."""
    lines = (
        [
            goal.what,
            wanted_text(goal),
            *("" if v is None else goal.show(v) for v in (verdict.value, verdict.best)),
            verdict.machine.split(" CPU")[0],
            verdict.state,
        ]
        for goal, verdict in judged(folder, "cpu")
    )
    return markdown("on a CPU, 2 threads|goal>|worst>|best>|on|", lines)


GOAL_TABLES: dict[str, Callable[[Path], str]] = {
    "goals": goals_table,
    "cpu_goals": cpu_goals_table,
    "cpu_goals_short": short_cpu_goals_table,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(__file__).resolve().parent / "results"
    parser.add_argument("--results", type=Path, default=folder)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="its goals alone")
    options = parser.parse_args()
    for device in [options.device] if options.device else ("cuda", "cpu"):
        print(goals_table(options.results, device))


if __name__ == "__main__":
    main()
