"""The rank-k update in AMX tiles: on a CPU that has them, and in an emulation on any."""

import ctypes
import functools
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from instruction_sets import using
from torch import Tensor

from rac_kernels import PackedTriangle, hessian_accumulate_

FOLDER = Path(__file__).resolve().parent / "emulated_amx"
FEWEST = 32  # AMX_ROWS of csrc/cpu/hessian_amx.h
NAMES = ("amx", "emulated")
everywhere = pytest.mark.parametrize("where", NAMES)


@functools.cache
def emulation() -> ctypes.CDLL | str:
    """The emulation, or why it cannot be built."""
    path = Path(tempfile.mkdtemp(prefix="rac-amx-")) / "hessian.so"
    flags = ["-O2", "-std=c++17", "-fopenmp", "-fno-strict-aliasing", "-ffp-contract=off"]
    flags += ["-Wall", "-Werror", "-Wno-psabi", "-Wno-ignored-attributes", f"-I{FOLDER}"]
    command = [*shlex.split(os.environ.get("CXX", "c++")), *flags, "-shared", "-fPIC"]
    try:
        done = subprocess.run(
            [*command, str(FOLDER / "hessian.cpp"), "-o", str(path)], capture_output=True, text=True
        )
    except OSError as error:
        return f"no C++ compiler: {error}"
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(path))
    pointer, long, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    loaded.run.argtypes = [pointer, long, number, pointer, long, pointer, long, long, number]
    return loaded


def update(
    where: str,
    x: Tensor,
    hessian: Tensor | PackedTriangle,
    row_weight: Tensor | None = None,
    threads: int = 1,
) -> Tensor | PackedTriangle:
    """The sum of bf16 x [T, D] on top of `hessian`; skips the test where that cannot be."""
    if where == "amx":
        with using("amx"):
            torch.set_num_threads(threads)
            try:
                return hessian_accumulate_(hessian, x, row_weight=row_weight, impl="native")
            finally:
                torch.set_num_threads(1)
    library = emulation()
    if isinstance(library, str):
        pytest.skip(library)
    packed = isinstance(hessian, PackedTriangle)
    values = hessian.data if packed else hessian
    weight = None if row_weight is None else row_weight.float().contiguous()
    library.run(
        *(values.data_ptr(), 0 if packed else values.stride(0), packed),
        *(x.data_ptr(), x.stride(0), None if weight is None else weight.data_ptr(), *x.shape),
        threads,
    )
    return hessian
