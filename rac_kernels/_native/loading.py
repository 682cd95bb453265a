"""The compiled modules: imported when first called, and why they are missing when they are."""

import functools
import importlib
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# What this file expects of the compiled modules; csrc/interface.h carries the same number.
INTERFACE = 9
CPU, CUDA = "rac_kernels._C_cpu", "rac_kernels._C_cuda"
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# Elements from which a second thread pays for being woken.
PARALLEL = 1 << 18
_REBUILD = "rebuild it with 'pip install --no-build-isolation -e .'"


@functools.cache
def load(name: str) -> types.ModuleType | str:
    """Import the compiled module, or say in one line why it cannot be used."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        compiler = "CUDA compiler (nvcc)" if name == CUDA else "C++ compiler"
        return f"{name} was not built: no working {compiler} at install time; {_REBUILD}"
    except ImportError as error:
        return f"{name} was built but does not load ({error}); {_REBUILD}"
    found = getattr(module, "INTERFACE", None)
    if found == INTERFACE:
        return module
    return f"{name} was built from other sources (interface {found}, not {INTERFACE}); {_REBUILD}"


def why_missing(device: str) -> str | None:
    """None when the compiled module for ``device`` ("cpu" or "cuda") loads, else the reason."""
    loaded = load(CUDA if device == "cuda" else CPU)
    return loaded if isinstance(loaded, str) else None


def instruction_set() -> str:
    """Name what the C++ kernels run on: "amx", "avx512_bf16", "avx512", "avx2" or "baseline"."""
    return load(CPU).instruction_set()


_this_thread = threading.local()


def threads() -> int:
    """How many threads a kernel may use: torch's setting, or what :func:`use_threads` said."""
    return getattr(_this_thread, "count", None) or torch.get_num_threads()


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Have the kernels that this Python thread calls use ``count`` threads each."""
    before = getattr(_this_thread, "count", None)
    _this_thread.count = count
    try:
        yield
    finally:
        _this_thread.count = before
