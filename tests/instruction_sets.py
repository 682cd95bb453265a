"""The C++ kernels with each instruction set, AVX-512 emulated where the CPU has none."""

import functools
import importlib.util
import runpy
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from rac_kernels import _native

TESTS = Path(__file__).resolve().parent
HEADER = TESTS / "emulated_avx512" / "avx512.h"
NAMES = ("baseline", "avx2", "avx512")
EMULATED = ("avx512", "avx512_bf16", "amx")
every_instruction_set = pytest.mark.parametrize("instruction_set", NAMES, indirect=True)
# Of what has kernels of its own for products of bf16.
every_bf16_set = pytest.mark.parametrize("instruction_set", (*NAMES, *EMULATED[1:]), indirect=True)
OTHERS = ("linear_avx2.cpp", "linear_baseline.cpp")  # files that have no AVX-512
LONG = ("linear_avx512.cpp", "linear_dots.cpp", "linear_tiles.cpp")  # to compile
FUSE = "-fexpensive-optimizations"  # products with sums, where setup.py allows it


@functools.cache
def emulation() -> types.ModuleType | str:
    """`rac_kernels._C_cpu` whose AVX-512 kernels run on AVX2, or why it cannot be built."""
    if _native.instruction_set() != "avx2":
        return "it is emulated with AVX2, on a CPU that has it"
    try:
        with mock.patch("setuptools.setup"):
            setup = runpy.run_path(str(TESTS.parent / "setup.py"))
    except ImportError as error:
        return f"setup.py: {error}"
    sources = setup["SOURCES"][_native.CPU]
    sources[:] = [name for name in sources if name not in OTHERS]
    flags = ["-O1", "-mavx2", "-mfma", f"-I{HEADER.parent}", "-include", str(HEADER)]
    setup["CXX_FLAGS"][:] = [*(flag for flag in setup["CXX_FLAGS"] if flag != "-O3"), *flags]
    for name in sources:
        quickly = name.startswith("bindings") or name in LONG
        setup["SOURCE_FLAGS"].setdefault(name, []).append("-O0" if quickly else FUSE)
    build = Path(tempfile.mkdtemp(prefix="rac-avx512-"))
    target = build / "_C_cpu.so"
    (build / "build.ninja").write_text(setup["ninja_file"](_native.CPU, target, None))
    command = [*setup["ninja_command"](), "-C", str(build)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        return f"no C++ compiler: {error}"
    assert done.returncode == 0, done.stdout
    spec = importlib.util.spec_from_file_location("emulated_avx512._C_cpu", target)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def using(name: str) -> Iterator[None]:
    """Run the C++ kernels with one of NAMES or EMULATED; skips the test where that cannot be."""
    module = _native.load(_native.CPU)
    try:
        module.use_instruction_set(name)
    except ValueError as error:
        emulated = emulation() if name in EMULATED else f"{name} is not emulated"
        if isinstance(emulated, str):
            pytest.skip(f"{error}; {emulated}")
        emulated.use_instruction_set(name)
        with mock.patch.dict(sys.modules, {_native.CPU: emulated}):
            _native.load.cache_clear()
            try:
                yield
            finally:
                _native.load.cache_clear()
        return
    try:
        yield
    finally:
        module.use_instruction_set("best")
