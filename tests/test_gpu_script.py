"""benchmarks/gpu.sh without a GPU: its imports, its parts, and the CPU that passes for a GPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pretend_gpu import ABSENT, PretendGPU
from pretend_graph import REFUSED, Graph, capture
from pretend_shapes import SMALL

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
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
    assert {"test_fp8", "test_cuda_kernels", "benchmarks.bench_model"} <= set(modules)
    code = IMPORTS.format(root=str(ROOT), tests=str(ROOT / "tests"))
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "[]" and "pydantic" in ABSENT


def test_every_benchmark_of_the_script_has_small_shapes():
    parts = re.search(r"PARTS=\$\{\*:-(.*?)\}", SCRIPT.read_text(), re.DOTALL)[1].split()
    plain = {f"bench_{part}" for part in parts} & {p.stem for p in SCRIPT.parent.glob("*.py")}
    assert set(SMALL) == plain | {"tune", "bench_decode", "bench_model"}


@pytest.mark.slow
def test_a_dry_run_of_some_parts(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path)}
    command = ["bash", str(SCRIPT), "--dry-run", "ceilings", "pack", "no_such_part"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "== no_such_part: exit 1" in done.stdout, done.stdout[-2000:]
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
