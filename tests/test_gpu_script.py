"""benchmarks/gpu.sh without a GPU: its imports, its parts, and the CPU that passes for a GPU."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pretend_gpu import ABSENT, PretendGPU
from pretend_graph import REFUSED, Graph, capture
from pretend_shapes import SMALL

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
# Part -> the seconds that it should take, and may.
TABLE = {
    part: (int(expected), int(limit))
    for part, expected, limit in map(
        str.split, re.search(r'TABLE="\n(.*?)\n"', SCRIPT.read_text(), re.DOTALL)[1].splitlines()
    )
}
IMPORTS = """
import importlib, sys
sys.path[:0] = [{root!r}, {tests!r}]
import pretend_gpu
pretend_gpu.hide(pretend_gpu.ABSENT)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(sorted(name for name in pretend_gpu.ABSENT if name in sys.modules))
"""


def gpu_tests():
    """The files that gpu.sh hands to pytest."""
    pattern = re.search(r"grep -l '(.*?)'", SCRIPT.read_text())[1].replace("\\|", "|")
    return [
        path.stem for path in ROOT.glob("tests/test_*.py") if re.search(pattern, path.read_text())
    ]


def test_no_part_imports_what_a_cuda_image_lacks():
    modules = [f"benchmarks.{name}" for name in SMALL] + ["conftest", *gpu_tests()]
    assert {"test_linear_fp8_cuda", "test_cuda_kernels", "benchmarks.bench_model"} <= set(modules)
    code = IMPORTS.format(root=str(ROOT), tests=str(ROOT / "tests"))
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "[]" and "pydantic" in ABSENT


def test_every_benchmark_of_the_script_has_small_shapes():
    plain = {f"bench_{part}" for part in TABLE} & {p.stem for p in SCRIPT.parent.glob("*.py")}
    assert set(SMALL) == plain | {"tune", "bench_decode", "bench_model"}


@pytest.mark.slow
def test_a_dry_run_of_some_parts(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path)}
    command = ["bash", str(SCRIPT), "--dry-run", "ceilings", "pack"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    finished = [line.split()[1:] for line in (tmp_path / "gpu_parts.txt").read_text().splitlines()]
    assert finished == [["ceilings", "ok"], ["pack", "ok"]]
    rows = [json.loads(line) for line in (tmp_path / "pack.jsonl").read_text().splitlines()]
    assert {row["op"] for row in rows} == {"pack_2to4", "unpack_2to4", "mask_and_pack_2to4"}
    assert all(row["device"] == "cuda" and row["gpu"] == "pretend" for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_script_says_so():
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(["bash", str(SCRIPT), "ceilings"], env=environment, capture_output=True)
    assert done.returncode == 2 and b"--dry-run runs the parts without one" in done.stderr


def test_tensors_are_where_they_were_made():
    with PretendGPU():
        host, device = torch.ones(3), torch.ones(3, device="cuda")
        assert host.is_cpu and device.is_cuda and device.device == torch.device("cuda", 0)
        assert (host.mT if host.ndim > 1 else host[:2]).is_cpu and (device * 2).is_cuda
        assert device.cpu().is_cpu and host.cuda().is_cuda and host.to("cuda:0").is_cuda
        assert device.new_zeros(2).is_cuda and torch.zeros_like(device, device="cpu").is_cpu
        with pytest.raises(RuntimeError, match="two devices"):
            host + device
        device.copy_(host)
        assert device[torch.tensor([0, 2])].is_cuda
        assert (device * torch.tensor(2.0)).is_cuda  # a number may be anywhere


def test_a_graph_runs_at_its_replays_alone():
    with PretendGPU():
        x, y = torch.zeros(2, device="cuda"), torch.zeros(2, device="cuda")
        graph = Graph()
        with capture(graph):
            y.add_(x)
            total = (y * 2).sum()
        assert y.tolist() == [0, 0]
        for step in (1, 2):
            x.fill_(step)
            graph.replay()
        assert y.tolist() == [3, 3] and float(total) == 12


@pytest.mark.parametrize("wait", ["tolist", "item", "cpu", "nonzero"])
def test_a_capture_refuses_to_wait_for_the_device(wait):
    with PretendGPU():
        x = torch.zeros(1, device="cuda")
        with pytest.raises(RuntimeError, match=REFUSED), capture(Graph()):
            getattr(x, wait)()
        assert Graph.capturing is None


STAND_IN = """#!/usr/bin/env bash
# Stands for Python where there is a GPU: says what it is given; ends, or does not, as told.
case "$*" in
*is_available* | *xdist*) exit 0 ;;
esac
echo "$*" >>"$FOLDER/calls"
while read -r pattern action; do
  if [[ "$*" == *$pattern* ]]; then $action; fi
done <"$FOLDER/rules"
exit 0
"""


@pytest.fixture
def script(tmp_path):
    """`script(rules, *parts)`: gpu.sh on a stand-in; its status, and how its parts ended."""
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    (tmp_path / "bin").mkdir()
    for tool in ("nvidia-smi", "compute-sanitizer"):
        (tmp_path / "bin" / tool).write_text('#!/usr/bin/env bash\necho "$0 $*" >>$FOLDER/tools\n')
        (tmp_path / "bin" / tool).chmod(0o755)
    environment = os.environ | {"PYTHON": str(python), "OUT": str(tmp_path / "out")}
    environment |= {"FOLDER": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def run(rules="", *parts, seconds=570, wait=None):
        (tmp_path / "rules").write_text(rules)
        command = ["bash", str(SCRIPT), *parts]
        environment["GPU_SECONDS"] = str(seconds)
        started = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        if wait is not None:
            while not re.search(wait, (tmp_path / "calls").read_text()):
                time.sleep(0.01)
            started.kill()
        lines = started.communicate()[0].splitlines()
        ended = [re.match(r"== ([\w-]+): (.*)", line) for line in lines]
        return started.returncode, [match.groups() for match in ended if match]

    (tmp_path / "calls").touch()
    return run


def test_the_parts_fit_two_calls_and_the_goals_the_first():
    """An estimate; each part may take at least twice of its own."""
    expected = [seconds for seconds, _ in TABLE.values()]
    assert all(2 * seconds <= limit for seconds, limit in TABLE.values())
    first = list(TABLE)[: sum(total <= 570 for total in itertools.accumulate(expected))]
    assert {"hessian", "decode1_5b", "sparsegpt", "factor", "linear_cuda", "model7b"} <= set(first)
    assert sum(part.startswith("tests-") for part in first) == 6
    assert sum(expected) <= 2 * 570 + TABLE["build"][0]


def test_all_parts_run_once_in_order(script):
    assert script() == (0, [(part, "exit 0") for part in TABLE])
    done = [(part, "done before") for part in TABLE if part != "build"]
    assert script() == (0, [*done, ("build", "exit 0")])  # finds by itself what there is to do


def test_a_name_may_stand_for_several_parts_and_an_unknown_one_is_refused(script, tmp_path):
    parts = ["pack", "sanitize-memcheck", "sanitize-racecheck"]
    assert [part for part, _ in script("", "pack", "sanitize")[1]] == parts
    assert script("", "pack", "packs") == (2, [])
    lines = (tmp_path / "tools").read_text().splitlines()
    checked = [line.partition("--tool ")[2] for line in lines if "compute-sanitizer" in line]
    assert [line.split()[0] for line in checked] == ["memcheck", "racecheck"]
    assert all(f"{tmp_path}/python -m pytest -m gpu" in line for line in checked)


def test_what_failed_comes_last_next_time(script):
    parts = ("ceilings", "pack", "masks")
    ended = [("ceilings", "exit 3"), ("pack", "exit 0"), ("masks", "exit 0")]
    assert script("bench_ceilings exit 3\n", *parts) == (1, ended)
    assert script("", *parts, "factor") == (
        0,
        [
            ("pack", "done before"),
            ("masks", "done before"),
            ("factor", "exit 0"),
            ("ceilings", "exit 0"),
        ],
    )


def test_a_cut_part_and_what_was_not_reached_run_next_time(script, tmp_path):
    parts = ("pack", "masks", "factor")
    code, ended = script("bench_masks exec sleep 60\n", *parts, seconds=16)
    assert code == 1 and ended == [
        *(("pack", "exit 0"), ("masks", "exit 124"), ("factor", "no time left, next run"))
    ]
    assert script("", *parts)[1] == [
        *(("pack", "done before"), ("masks", "exit 0"), ("factor", "exit 0"))
    ]


@pytest.mark.parametrize("killed", ["pack", "masks", "factor"])
def test_killed_in_any_part_it_goes_on_with_that_one(script, killed):
    parts = ("pack", "masks", "factor")
    script(f"bench_{killed} exec sleep 2\n", *parts, wait=f"bench_{killed}")
    before = parts[: parts.index(killed)]
    after = parts[len(before) :]
    assert script("", *parts) == (
        0,
        [(part, "done before") for part in before] + [(part, "exit 0") for part in after],
    )


def test_later_parts_use_what_tuning_found(script, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tuned.json").write_text("{}")
    rule = "bench_pack eval echo $RAC_TUNED >$FOLDER/tuned\n"
    assert script(rule, "pack")[0] == 0
    assert (tmp_path / "tuned").read_text().strip() == str(tmp_path / "out" / "tuned.json")
