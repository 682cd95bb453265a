"""Kernels of csrc/cpu under ThreadSanitizer: nothing is shared among threads without waiting."""

import os
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CPU = HERE.parent / "csrc/cpu"
SOURCES = ["linear_baseline", "hessian_accumulate", "factor_hessian", "isa", "linear_sparse"]
SOURCES += ["hessian_amx", "linear_dots", "linear_tiles"]
SOURCES += ["decode_attention", "decoder_layer", "rmsnorm_capture", "swiglu_capture", "capture"]
SOURCES += ["residual_add"]
SOURCES += ["sparsegpt", "sparsegpt_block", "sparsegpt_keys", "sparsegpt_product"]
SOURCES += ["sparsegpt_rows", "sparsegpt_select"]
CXX = [*shlex.split(os.environ.get("CXX", "c++")), "-std=c++17", "-g", "-fsanitize=thread"]
FLAGS = ["-fopenmp", "-fno-strict-aliasing", "-Wno-psabi", "-Wno-ignored-attributes", f"-I{CPU}"]
AMX = [f"-I{HERE}/emulated_amx", "-include", f"{HERE}/emulated_amx/amx.h"]  # which any CPU runs
REPORTED = 66  # the exit status of a program that ThreadSanitizer found a race in
SECONDS = 60  # of a run that takes one or two: threads that wait for ever are an error, too


def compile_one(source: Path, to: Path) -> None:
    # Optimised, the linears take 17 s to compile and 3 s otherwise; they run in 0.4 s.
    level = "-O0" if source.stem.startswith("linear_") else "-O1"
    flags = AMX if source.stem == "hessian_amx" else []
    command = [*CXX, level, *FLAGS, *flags, "-c", str(source), "-o", str(to)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def link(objects: list[Path], program: Path) -> Path:
    command = [*CXX, *map(str, objects), "-pthread", "-o", str(program)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return program


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Where addresses are too random for ThreadSanitizer's shadow memory, without that."""
    environment = os.environ | {"TSAN_OPTIONS": f"halt_on_error=1 exitcode={REPORTED}"}
    for prefix in ([], ["setarch", "-R"]):
        if prefix and not shutil.which(prefix[0]):
            break
        command = [*prefix, str(program), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=SECONDS
        )
        if "unexpected memory mapping" not in done.stderr and "setarch:" not in done.stderr:
            return done
    pytest.skip(f"ThreadSanitizer does not start here: {done.stderr.strip()[:200]}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder where a program of two lines shows that ThreadSanitizer works."""
    folder = tmp_path_factory.mktemp("tsan")
    (folder / "probe.cpp").write_text("#include <omp.h>\nint main() { return 0; }\n")
    try:
        compile_one(folder / "probe.cpp", folder / "probe.o")
        link([folder / "probe.o"], folder / "probe")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"no C++ compiler with OpenMP and ThreadSanitizer: {reason.strip()[:200]}")
    (folder / "probe.o").unlink()
    assert run(folder / "probe").returncode == 0
    return folder


@pytest.fixture(scope="module")
def objects(folder):
    sources = [CPU / f"{name}.cpp" for name in SOURCES] + [HERE / "thread_races.cpp"]
    objects = [folder / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, sources, objects))
    return objects


@pytest.fixture(scope="module")
def program(folder, objects):
    return link(objects, folder / "thread_races")


@pytest.mark.parametrize("job", ["sparsegpt", "factor", "hessian", "linears", "layer"])
def test_no_race(program, job):
    done = run(program, job)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr[:3000]


def test_a_barrier_that_is_missing_is_found(folder, objects):
    """Between matrices of unequal heights, whose tiles belong to other threads."""
    text, count = re.subn(r"if \(i > 0\) team\.wait\(\);", "", (CPU / "sparsegpt.cpp").read_text())
    assert count == 1
    (folder / "broken.cpp").write_text(text)
    compile_one(folder / "broken.cpp", folder / "broken.o")
    kept = [each for each in objects if each.stem != "sparsegpt"]
    done = run(link([*kept, folder / "broken.o"], folder / "broken"), "sparsegpt")
    assert done.returncode == REPORTED
    assert "data race" in done.stderr and "load_tile" in done.stderr, done.stderr[:3000]
