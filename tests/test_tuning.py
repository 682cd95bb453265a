"""Tiles: what was measured on a GPU is used there, everything else runs the defaults."""

import dataclasses
import json

import pytest
import torch

from rac_kernels._triton import tuned, tuning

CUDA = torch.device("cuda")
HALF = torch.bfloat16


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """`gpu(name, table)`: a GPU of that name, and the file that RAC_TUNED names."""

    def make(name, table):
        path = tmp_path / "tuned.json"
        path.write_text(json.dumps(table))
        monkeypatch.setenv("RAC_TUNED", str(path))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        tuned.table.cache_clear()
        return path

    yield make
    tuned.table.cache_clear()


MEASURED = {
    "NVIDIA H200": {
        "hessian": {"wide": {"tma": True, "num_stages": 3}, "narrow": {}},
        "solve": {"all": {"solve_r": 32}},
        "factor": {"all": {"panel": 1024}, "choice": {"least": 5120}},
    }
}


def test_a_tuned_gpu_runs_what_was_measured(gpu):
    gpu("NVIDIA H200", MEASURED)
    default = tuning.HESSIAN[90, "wide"][0]
    wide = tuning.pick_hessian(5120, HALF, False, True, CUDA)
    assert wide == dataclasses.replace(default, tma=True, num_stages=3)
    assert tuning.pick_hessian(1536, HALF, False, True, CUDA) == tuning.HESSIAN[90, "narrow"][0]
    assert tuning.pick_hessian(5120, HALF, True, True, CUDA) == tuning.HESSIAN[90, "float32"][0]
    assert tuning.pick_solve(CUDA) == dataclasses.replace(tuning.SOLVE[90][0], solve_r=32)
    assert tuning.pick_factor(CUDA) == dataclasses.replace(tuning.FACTOR[90][0], panel=1024)
    assert tuning.factor_from(CUDA) == 5120


def test_other_gpus_and_the_cpu_run_the_defaults(gpu):
    gpu("NVIDIA A100-SXM4-80GB", MEASURED)
    for device in (CUDA, torch.device("cpu")):
        default = tuning.HESSIAN[90, "wide"][0]
        assert tuning.pick_hessian(5120, HALF, False, True, device) == default
        assert tuning.pick_solve(device) == tuning.SOLVE[90][0]
        assert tuning.pick_factor(device) == tuning.FACTOR[90][0]
        assert tuning.factor_from(device) is None


def test_a_field_that_is_not_there_is_named_with_its_file(gpu):
    path = gpu("NVIDIA H200", {"NVIDIA H200": {"solve": {"all": {"block_z": 1}}}})
    with pytest.raises(ValueError, match=f"{path}: solve, all: .*block_z.*tune.py again"):
        tuning.pick_solve(CUDA)


@pytest.mark.parametrize(
    ("rows", "solved"), [(18944, 64), (8448, 64), (4224, 32), (3584, 32), (512, 32), (1, 32)]
)
def test_few_rows_are_shared_by_more_programs(rows, solved):
    """132 multiprocessors: 64 rows a program unless twice as many programs still run at once."""
    assert tuning.SOLVE[90][0].rows_of(rows, 132) == solved
    assert tuning.SOLVE[80][0].rows_of(rows, 108) == 64  # 32 rows spill there


def test_what_the_package_brings_fits_the_configurations(gpu, monkeypatch):
    names = json.loads(tuned.FILE.read_text())
    gpu("", {})
    monkeypatch.delenv("RAC_TUNED")
    for name in [*names, "a GPU that nobody tuned"]:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        for features, aligned in ((1536, True), (5120, True), (77, False)):
            tuning.pick_hessian(features, HALF, False, aligned, CUDA)
        tuning.pick_solve(CUDA), tuning.pick_factor(CUDA), tuning.factor_from(CUDA)


def test_the_fastest_of_those_that_agree_is_chosen(monkeypatch):
    """Sums over shapes count, not one shape; what fails or differs is left out."""
    from types import SimpleNamespace

    from benchmarks import tune

    configs = tuple(tuning.SolveConfig(64, 128, 32, 4, stages) for stages in (3, 2, 4, 1, 5))
    # default, faster on both, fastest on one alone, wrong, refused
    times = {"a": {3: 1.0, 2: 0.8, 4: 0.5}, "b": {3: 1.0, 2: 0.8, 4: 1.5}}

    def runs():
        for shape, seconds in times.items():

            def run(config, seconds=seconds):
                if config.num_stages == 5:
                    raise RuntimeError("out of resources")
                run.seconds = seconds
                return torch.ones(3) * (2.0 if config.num_stages == 1 else 1.0)

            yield shape, run

    def device_seconds(functions, repeats, device):
        current = device_seconds.shapes.pop(0)
        return {number: times[current][configs[number].num_stages] for number in functions}

    device_seconds.shapes = list(times)
    monkeypatch.setattr(tune, "device_seconds", device_seconds)
    options = SimpleNamespace(device="cpu", repeats=1, out=None)
    assert tune.choose("solve", "all", configs, runs(), options) == {"num_stages": 2}


def test_what_is_written_keeps_other_gpus(monkeypatch, tmp_path):
    from benchmarks import tune

    path = tmp_path / "tuned.json"
    path.write_text(json.dumps(MEASURED))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L40S")
    tune.write(path, {"solve": {"all": {}}})
    assert json.loads(path.read_text()) == MEASURED | {"NVIDIA L40S": {"solve": {"all": {}}}}
