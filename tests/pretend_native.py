"""What stands for the compiled CUDA module where a CPU passes for a GPU: its emulations."""

import ctypes
import importlib
import sys
import types
from collections.abc import Callable
from types import SimpleNamespace

import torch
from emulated_linear import H100, library, plan

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def tensor_at(address: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """`count` elements in memory, not copied."""
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    return torch.frombuffer(memory, dtype=dtype)


def install(kernel: Callable, plain: Callable) -> None:
    """Put the stand-in where `rac_kernels._native` looks; `kernel` runs what would be launched.

    `plain()` is a context in which tensors are the CPU's.
    """
    cpu = importlib.import_module("rac_kernels._C_cpu")

    def pack(name: str) -> Callable[..., None]:
        def packing(*, first: int, stream: int, **arguments: int) -> None:
            def launch() -> None:
                found = getattr(cpu, name)(**arguments, threads=1)
                if found >= 0:
                    ctypes.c_int64.from_address(first).value = found

            kernel(launch)

        return packing

    def select_mask(*, scores, keep, groups, n, m, dtype, stream):
        def launch() -> None:
            values = tensor_at(scores, groups * m, DTYPES[dtype]).view(groups, m).float()
            lowest = values.sort(dim=1, stable=True).indices[:, :n]
            kept = tensor_at(keep, groups * m, torch.bool).view(groups, m)
            kept.fill_(True).scatter_(1, lowest, False)

        kernel(launch)

    def linear_plan(*, tokens: int, rows: int, columns: int, chunk: int, slot: int, device: tuple):
        with plain():
            fields = plan(tokens, rows, columns, device, chunk=chunk, slot=slot)
        tiles, warps, _, blocks, _, _ = fields
        partials = 2 * blocks * warps * 32 * tiles * 8
        return SimpleNamespace(fields=fields, blocks=blocks, partials=partials)

    def linear(*, plan, arrived, partials, stream, **given):
        def launch() -> None:
            fields = torch.tensor(plan.fields, dtype=torch.int32)
            order = ("weight", "starts", "x", "y", "scale", "x_scale", "bias")
            failure = library().run(
                *(given[name] or None for name in order),
                *(1 << 40, given["stride"], given["tokens"], given["rows"], given["columns"]),
                *(int(given["bias_is_float"]), fields.data_ptr(), given["dtype"], 0, 0),
            )
            assert not failure, failure.decode()

        kernel(launch)

    module = types.ModuleType("rac_kernels._C_cuda")
    module.INTERFACE = cpu.INTERFACE
    module.pack_2to4, module.unpack_2to4 = pack("pack_2to4"), pack("unpack_2to4")
    module.select_mask, module.linear, module.linear_plan = select_mask, linear, linear_plan
    module.device_limits = lambda number: H100
    module.capture_of = lambda stream: int(torch.cuda.is_current_stream_capturing())
    sys.modules[module.__name__] = module
