"""A CPU that passes for a GPU: code meant for CUDA runs as it is, before there is one.

    python tests/pretend_gpu.py MODULE [ARGUMENT ...]      e.g. pytest -m gpu tests/test_flush.py

Tensors say that they are on cuda:0, Triton's kernels run in its interpreter, the compiled CUDA
kernels in their emulations, and packages that a CUDA image of PyTorch does not bring cannot be
imported. A CUDA graph is a list of what was called while it was captured; a replay calls it again
into the same memory. What a capture does not allow is an error here too: waiting for the device,
copies from the host, a kernel's first launch. Streams do nothing: races are not found here.

`benchmarks/gpu.sh --dry-run` runs all its parts so. Nothing that is timed here means anything.
"""

import contextlib
import importlib.machinery
import os
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from pretend_graph import REFUSED, Graph, capture, kernel, plain, tensors
from torch.overrides import TorchFunctionMode

TESTS = Path(__file__).resolve().parent
CUDA = torch.device("cuda", 0)
# What torch, triton, transformers and pytest bring is there; of the rest of our own dependencies
# and of the tests' nothing is.
ABSENT = {"compressed_tensors", "datasets", "hypothesis", "llmcompressor", "math_verify"}
ABSENT |= {"matplotlib", "pandas", "psutil", "pyarrow", "pydantic", "rich", "typer", "vllm"}


def hide(packages: set[str]) -> None:
    """Make imports of `packages` fail as if they were not installed."""
    finder = importlib.machinery.PathFinder
    find = finder.find_spec

    def find_spec(_: type, name: str, path: Any = None, target: Any = None) -> Any:
        return None if name.split(".")[0] in packages else find(name, path, target)

    finder.find_spec = classmethod(find_spec)


# What waits for the device, or copies from the host.
WAITING = {"cpu", "tolist", "item", "numpy", "__bool__", "__int__", "__float__", "__array__"}
WAITING |= {"tensor", "as_tensor", "from_numpy"}
# What may be given tensors of both places.
MIXING = {"to", "copy_", "__getitem__", "__setitem__", "__set__", "type_as", "set_", "index_put_"}


def on_host(tensor: torch.Tensor) -> bool:
    """Whether a tensor was made on, or asked to be on, the CPU."""
    return bool(getattr(tensor, "__dict__", {}).get("on_host"))


class PretendGPU(TorchFunctionMode):
    """Tensors are on the GPU, but for those that were made on the CPU or moved there."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if name == "__get__":
            return self._property(function, args)
        given = [t for t in (*args, *kwargs.values()) for t in tensors(t)]
        if name == "__set__" and function.__self__.__name__ == "data":
            args[0].on_host = on_host(args[1])
        device = self._device(name, args, kwargs)
        self._check(name, given, device)
        if name == "mm" and "out_dtype" in kwargs:
            wide = kwargs.pop("out_dtype")
            args = tuple(operand.to(wide) for operand in args)
        if name == "cuda":
            function, args, kwargs = torch.Tensor.to, (args[0], CUDA), {}
        if name in ("to", "type", "cuda"):
            args = tuple(map(_on_cpu, args))
        kwargs = {key: _on_cpu(value) for key, value in kwargs.items()}
        result = function(*args, **kwargs)
        host = all(map(on_host, given)) if device is None else device.type == "cpu"
        for made in tensors(result):
            if all(made is not tensor for tensor in given):
                made.on_host = host
            elif device is not None and on_host(made) != host:
                result = made.clone()
                result.on_host = host
        return result

    @staticmethod
    def _device(name: str, args: tuple, kwargs: dict) -> torch.device | None:
        """Where the result was asked to be."""
        if name in ("cpu", "cuda"):
            return torch.device(name)
        named = [kwargs.get("device"), *(args[1:2] if name == "to" else ())]
        found = next((d for d in named if isinstance(d, str | torch.device | int)), None)
        if isinstance(found, int):
            return CUDA
        return None if found is None else torch.device(found)

    @staticmethod
    def _check(name: str, given: list[torch.Tensor], device: torch.device | None) -> None:
        """Refuse what a GPU would."""
        if Graph.capturing is not None and name in WAITING:
            raise RuntimeError(REFUSED + name)
        if name not in MIXING and len({on_host(t) for t in given if t.ndim}) > 1:
            raise RuntimeError(f"{name}: tensors on two devices, cuda:0 and cpu")

    @staticmethod
    def _property(function: Any, args: tuple) -> Any:
        owner, host = function.__self__.__name__, on_host(args[0])
        if owner == "device":
            return torch.device("cpu") if host else CUDA
        if owner in ("is_cuda", "is_cpu"):
            return host == (owner == "is_cpu")
        result = function(*args)
        for made in tensors(result):  # .data, .mT
            made.on_host = host
        return result


def _on_cpu(value: Any) -> Any:
    if isinstance(value, str | torch.device) and str(value).startswith("cuda"):
        return torch.device("cpu")
    return value


class _Stream:
    """A stream, an event, or a context: whatever is asked of it is done at once."""

    cuda_stream = 0

    def __init__(self, *_: object, **__: object) -> None:
        self.at = time.perf_counter()

    def record(self, *_: object) -> None:
        self.at = time.perf_counter()

    def record_event(self, *_: object) -> "_Stream":
        return _Stream()

    def elapsed_time(self, end: "_Stream") -> float:
        return max(1e3 * (end.at - self.at), 1e-3)

    def query(self) -> bool:
        return True

    def nothing(self, *_: object) -> None:
        pass

    synchronize = wait_stream = wait_event = nothing


class _Generator(torch.Generator):
    def __new__(cls, device: object = "cpu") -> "_Generator":
        made = super().__new__(cls, "cpu")
        made.given = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return CUDA if self.given.type == "cuda" else self.given


def patch_torch() -> None:
    """Have torch.cuda speak of one GPU of compute capability 9.0 with four multiprocessors."""
    limits = {"multi_processor_count": 4, "total_memory": 80 << 30, "major": 9, "minor": 0}
    limits |= {"name": "pretend", "L2_cache_size": 50 << 20}

    def null(*_: object, **__: object) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    values = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: "pretend",
        "get_device_properties": lambda *_: SimpleNamespace(**limits),
        "mem_get_info": lambda *_: (80 << 30, 80 << 30),
        "memory_allocated": lambda *_: 0,
        "max_memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
        "empty_cache": lambda: None,
        "synchronize": lambda *_: None,
        "current_stream": lambda *_: _Stream(),
        "set_stream": lambda *_: None,
        "graph_pool_handle": lambda: None,
        "is_current_stream_capturing": lambda: Graph.capturing is not None,
        "set_sync_debug_mode": lambda *_: None,
        "_sleep": lambda *_: None,
        **dict.fromkeys(("device", "device_of", "stream"), null),
        **{"Stream": _Stream, "Event": _Stream, "CUDAGraph": Graph, "graph": capture},
    }
    for name, value in values.items():
        assert hasattr(torch.cuda, name), name
        setattr(torch.cuda, name, value)
    torch.Generator = _Generator
    torch.Tensor.record_stream = lambda *_: None
    torch.version.cuda = "pretend"


def patch_triton() -> None:
    """Launches go through `kernel`; the interpreter computes bf16 right."""
    import triton_interpreter
    from triton.runtime.interpreter import GridExecutor

    triton_interpreter._correct_bf16()
    triton_interpreter._patch_language_once()
    triton_interpreter.DEVICE = "cuda"
    launch = GridExecutor.__call__

    def launched(self: Any, *args: object, **kwargs: object) -> None:
        kernel(lambda: launch(self, *args, **kwargs), self.fn, (args, kwargs))

    GridExecutor.__call__ = launched


def pretend() -> None:
    """Turn this process's CPU into a GPU, for good."""
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ.setdefault("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]
    hide(ABSENT)
    patch_triton()  # before is_available: triton_interpreter asks
    patch_torch()
    import pretend_native

    pretend_native.install(kernel, plain)
    torch.set_num_threads(1)
    PretendGPU().__enter__()


def main() -> None:
    name, *arguments = sys.argv[1:]
    pretend()
    sys.argv = [name, *arguments]
    from pretend_shapes import reduce_shapes

    if reduce_shapes(name) is not None:
        return sys.modules[name].main()
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
