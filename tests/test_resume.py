"""`kill -9` at any moment, then the same call again: nothing is lost, the weights are the same.

The runs are processes of their own that are really killed; a fork server spares them the imports.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from rac.errors import UserError
from rac.recipe import Recipe, make_recipe
from rac.run import prune, trace

ROOT = Path(__file__).parent.parent
WRITES = ("replace", "unlink", "rmdir")  # what changes names on disk: where a crash shows


def _kill_at(number: int, after: bool) -> None:
    """Make this process kill itself at the `number`-th change on disk, before or after it."""
    count = 0

    def watched(function: Callable) -> Callable:
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*args, **kwargs)
            finally:
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in WRITES:
        setattr(os, name, watched(getattr(os, name)))


def _log_solves(path: Path) -> None:
    """Append a line to `path` for every layer that is written."""
    from rac.pruning.stage import PruningStage

    write = PruningStage._write_layer

    def logged(self, layer, tensors, rows):
        write(self, layer, tensors, rows)
        with open(path, "a") as file:
            file.write(f"{layer}\n")

    PruningStage._write_layer = logged


def _work(function, recipe, out, number=0, after=False, log=None) -> None:
    torch.set_num_threads(1)
    if number:
        _kill_at(number, after)
    if log:
        _log_solves(log)
    function(recipe, out, quiet=True, snapshot_seconds=0)


def start(function, recipe: Recipe, out: Path, **options) -> multiprocessing.Process:
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_work, args=(function, recipe, out), kwargs=options)
    process.start()
    return process


def finish(process: multiprocessing.Process) -> int:
    process.join(120)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


@pytest.fixture(scope="module")
def recipe(source_of, prompt_file) -> Recipe:
    return Recipe(
        model=str(source_of("llama", num_hidden_layers=5)),
        prompts=str(prompt_file),
        tokens=700,
        max_new_tokens=30,
        batch_size=4,
        temperature=1.0,
    )


def changed(recipe: Recipe, **changes: object) -> Recipe:
    return make_recipe(recipe.model_dump() | changes)


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a finished run, but of the record, which holds times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "rac.json")
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def straight(recipe, source_of, tmp_path_factory) -> Callable[[str], tuple[Recipe, dict]]:
    """`straight(kind)`: a recipe and the files that it gives when nothing interrupts it."""
    other = str(source_of("llama", seed=5))
    kinds = {
        "decode": {"collector": "decode", "keep_hessians": True},
        "replay": {"collector": "replay"},
        "pruned": {"propagate": "pruned", "solver": "wanda", "pattern": "2:4"},
        "text": {"calibration": "text", "prompts": "embedded", "scope": "mlp"},
        "off-policy": {"calibration": "off-policy", "trace_model": other, "scope": "first"},
    }
    done: dict[str, tuple[Recipe, dict]] = {}

    def result(kind: str) -> tuple[Recipe, dict]:
        if kind not in done:
            own, out = changed(recipe, **kinds[kind]), tmp_path_factory.mktemp("straight")
            assert finish(start(prune, own, out)) == 0
            done[kind] = own, contents(out)
        return done[kind]

    return result


@pytest.mark.parametrize("kind", ["decode", "replay", "pruned", "text", "off-policy"])
def test_killed_at_every_change_on_disk(kind, straight, tmp_path):
    """Start n is killed at its n-th change, so that every kind of change is once the last."""
    recipe, expected = straight(kind)
    for number in range(1, 100):
        code = finish(start(prune, recipe, tmp_path / "run", number=number, after=number % 2 == 0))
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 5
    assert contents(tmp_path / "run") == expected


def test_traces_killed_at_every_change_on_disk(recipe, tmp_path):
    assert finish(start(trace, recipe, tmp_path / "straight")) == 0
    for number in range(1, 100):
        code = finish(start(trace, recipe, tmp_path / "run", number=number, after=number % 2 == 0))
        if code == 0:
            break
    assert number > 4
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


STAGES = {
    "decode": ["state/decode.pt", "state/hessians.safetensors", "state/layers/0001.safetensors"],
    "replay": ["state/traces.pt", "state/layers/0000.safetensors", "state/replay.pt"],
}


@pytest.mark.parametrize("kind", STAGES)
def test_killed_in_each_stage_and_nothing_finished_is_redone(kind, straight, tmp_path):
    recipe, expected = straight(kind)
    out, log = tmp_path / "run", tmp_path / "solved"
    stamps: dict[str, int] = {}
    codes = []
    for name in [*STAGES[kind], ".model.writing"]:
        process = start(prune, recipe, out, log=log)
        while process.is_alive() and not (out / name).exists():
            time.sleep(0.0005)
        process.kill()
        process.join()
        codes.append(process.exitcode)
        for kept in ("traces.parquet", "state/hessians.safetensors"):
            complete = kept in stamps or name != STAGES[kind][0]
            if complete and (out / kept).exists():
                stamp = (out / kept).stat().st_mtime_ns
                assert stamps.setdefault(kept, stamp) == stamp, f"{kept} was made twice"
    assert finish(start(prune, recipe, out, log=log)) == 0
    assert contents(out) == expected
    assert -signal.SIGKILL in codes[:3]  # a busy machine may come too late for some of them
    solved = log.read_text().split()
    # A layer is written before its line in the log, so that a kill between them loses the line.
    assert solved and len(solved) == len(set(solved)) and set(solved) <= set("01234")


@pytest.mark.parametrize("kind", ["decode", "replay"])
def test_killed_at_random_moments(kind, straight, tmp_path):
    recipe, expected = straight(kind)
    moments = random.Random(kind)
    for _ in range(8):
        process = start(prune, recipe, tmp_path / "run")
        process.join(moments.uniform(0.05, 0.7))
        process.kill()
        process.join()
    assert finish(start(prune, recipe, tmp_path / "run")) == 0
    assert contents(tmp_path / "run") == expected


def test_a_second_run_in_the_same_directory_is_refused(straight, tmp_path):
    recipe, expected = straight("decode")
    process = start(prune, recipe, tmp_path / "run")
    while not (tmp_path / "run" / "recipe.yaml").exists():
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(UserError, match="in use by another rac run; wait for it or choose"):
            prune(recipe, tmp_path / "run", quiet=True)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert finish(process) == 0
    assert contents(tmp_path / "run") == expected


def test_the_real_command(straight, tmp_path):
    """`python -m rac prune`, killed while it decodes; a second one meanwhile; then again."""
    recipe, expected = straight("decode")
    out = tmp_path / "run"
    command = [sys.executable, "-m", "rac", "prune", "--out", str(out), "--quiet"]
    command += ["--snapshot-seconds", "0"]
    for name, value in recipe.model_dump(exclude_defaults=True).items():
        flag = f"--{name.replace('_', '-')}"
        command += [flag] if value is True else [flag, str(value)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment)
    while first.poll() is None and not (out / "state" / "decode.pt").exists():
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)
    options = {"env": environment, "capture_output": True, "text": True, "timeout": 300}
    second = subprocess.run(command, **options)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    assert second.returncode == 2 and second.stdout == ""
    assert second.stderr.count("\n") == 1 and "is in use by another rac run" in second.stderr
    last = subprocess.run(command, **options)
    assert (last.returncode, last.stderr) == (0, "")
    assert last.stdout == f"checkpoint: {out}/model\n"
    assert contents(out) == expected
