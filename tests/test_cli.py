"""The command line in this process and in its own: runs, a full disk, interrupts."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import arguments, read_tensors

ROOT = Path(__file__).parent.parent


def test_a_run_from_the_command_line(rac, base):
    code, out, err = rac(*arguments(base))
    assert (code, err) == (0, [])
    assert out == [f"checkpoint: {base['out']}/model"]
    zeros = [float((w == 0).float().mean()) for n, w in read_tensors(base["out"] / "model").items()]
    assert sum(z == pytest.approx(0.5, abs=0.01) for z in zeros) == 21
    assert rac(*arguments(base))[0] == 0  # finished: nothing to do
    flags = base | {"out": base["out"].parent / "traces"}
    assert rac(*arguments(flags, "trace"))[:2] == (0, [f"traces: {flags['out']}/traces.parquet"])


def test_the_plan_is_printed_unless_quiet(rac, base):
    flags = {k: v for k, v in base.items() if k != "quiet"}
    code, _, err = rac(*arguments(flags))
    assert code == 0 and err[0].strip() == "plan" and any("collector" in line for line in err)


def test_no_arguments_print_the_help(rac):
    code, out, err = rac()
    assert code == 0 and err == [] and "Usage" in out[0]


def test_an_interrupt_says_how_to_go_on(rac, base, monkeypatch):
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rac.run.prune", interrupt)
    assert rac(*arguments(base)) == (130, [], ["rac: interrupted; the same command continues"])


@pytest.mark.parametrize("collector", ["decode", "replay"])
def test_a_disk_that_fills_up_and_is_freed(collector, rac, base, tmp_path, monkeypatch):
    """Every write of the run fails in turn; the same command then continues to the same bits."""
    base = base | {"collector": collector, "snapshot-seconds": 0}
    assert rac(*arguments(base | {"out": tmp_path / "straight"}))[0] == 0
    real, writes = os.replace, []

    def replace(source: object, target: object) -> None:
        if str(target) not in writes:
            writes.append(str(target))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    for _ in range(40):
        code, _, err = rac(*arguments(base))
        if code == 0:
            break
        assert code == 2 and len(err) == 1 and ": the disk is full; free space" in err[0]
    assert code == 0 and len(writes) > 8
    name = "model/model.safetensors"
    assert (base["out"] / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def python_m_rac(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rac", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_real_process(base):
    """Nothing that a library prints gets between the user and the one line."""
    done = python_m_rac(*arguments(base | {"pattern": "2:20"}))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("rac: --pattern 2:20") and done.stderr.count("\n") == 1


def test_info(rac):
    code, out, err = rac("info")
    names = [line.split()[0] for line in out]
    assert code == 0 and err == [] and {"torch", "transformers", "python", "kernels"} <= set(names)
    assert any(line.split()[:2] == ["linear", "cusparselt"] for line in out)
