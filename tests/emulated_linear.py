"""The CUDA kernels of packed linears, run on the CPU by tests/cuda_on_cpu."""

import ctypes
import functools
import shlex
import subprocess
import tempfile
from os import environ
from pathlib import Path

import torch
from torch import Tensor

from rac_kernels._native.reorder import CHUNK_2TO4, Reordered
from rac_kernels.packed import Packed2to4, PackedBitmap

FOLDER = Path(__file__).resolve().parent / "cuda_on_cpu"
UNIT = 2.0**-23  # tensor cores round towards zero
HALF_UNIT = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
DTYPES = {torch.bfloat16: 1, torch.float16: 2}
# Multiprocessors, bytes of shared memory for a block and for all blocks of one.
A100, RTX_3090, H100 = (108, 166912, 167936), (82, 101376, 102400), (132, 232448, 233472)


def sparse_weight(
    rows: int, columns: int, dtype: torch.dtype, *, integers: bool = False, device: str = "cpu"
) -> Tensor:
    """A random 2:4 weight [R, C]; small integers make every sum exact in any order."""
    generator = torch.Generator(device).manual_seed(rows + columns)
    like = {"generator": generator, "device": device}
    if integers:
        weight = torch.randint(-4, 5, (rows, columns), **like)
    else:
        weight = torch.randn(rows, columns, **like)
    kept = torch.rand(rows, columns // 4, 4, **like).argsort(2).argsort(2) < 2
    return (weight * kept.view(rows, columns)).to(dtype)


def scattered_weight(
    rows: int, columns: int, dtype: torch.dtype, *, integers: bool = False, device: str = "cpu"
) -> Tensor:
    """A random weight [R, C] of which half is zero, anywhere."""
    generator = torch.Generator(device).manual_seed(rows + columns)
    like = {"generator": generator, "device": device}
    if integers:
        weight = torch.randint(1, 5, (rows, columns), **like)
    else:
        weight = torch.randn(rows, columns, **like)
    return (weight * (torch.rand(rows, columns, **like) < 0.5)).to(dtype)


def inputs(
    tokens: int, columns: int, dtype: torch.dtype, *, integers: bool = False, device: str = "cpu"
) -> Tensor:
    """Random x [T, C]."""
    generator = torch.Generator(device).manual_seed(tokens)
    like = {"generator": generator, "device": device}
    if integers:
        return torch.randint(-3, 4, (tokens, columns), **like).to(dtype)
    return torch.randn(tokens, columns, **like).to(dtype)


def assert_linear(
    y: Tensor, x: Tensor, weight: Tensor, scale: Tensor | None = None, bias: Tensor | None = None
) -> None:
    """Against float64: gamma_{C+2} of a float32 sum in any order, the epilogue, one rounding."""
    truth, size = x.double() @ weight.double().mT, x.double().abs() @ weight.double().abs().mT
    if scale is not None:
        truth, size = truth * scale.double(), size * scale.double().abs()
    if bias is not None:
        truth, size = truth + bias.double(), size + bias.double().abs()
    sums = (x.shape[1] + 4) * UNIT * size
    bound = sums + HALF_UNIT[y.dtype] * (truth.abs() + sums) + 2.0**-24
    error = (y.double() - truth).abs()
    assert bool((error <= bound).all()), f"{float((error / bound).max())} times the bound"


@functools.cache
def library() -> ctypes.CDLL | str:
    """The emulation, or why it cannot be built."""
    path = Path(tempfile.mkdtemp(prefix="rac-emulation-")) / "linear.so"
    flags = ["-O2", "-std=c++17", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-shared", "-fPIC"]
    command = [*shlex.split(environ.get("CXX", "c++")), *flags, str(FOLDER / "linear.cpp")]
    try:
        done = subprocess.run([*command, "-o", str(path)], capture_output=True, text=True)
    except OSError as error:
        return f"no C++ compiler: {error}"
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(path))
    pointer, long, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    loaded.run.restype = ctypes.c_char_p
    loaded.run.argtypes = [pointer] * 7 + [long] * 5 + [number, pointer, number, number, number]
    loaded.plan_of.argtypes = [long] * 3 + [number] * 5 + [pointer]
    return loaded


def plan(
    tokens: int,
    rows: int,
    columns: int,
    device: tuple[int, int, int],
    *,
    chunk: int = CHUNK_2TO4,
    slot: int = 288,
) -> list[int]:
    """Tiles of tokens, warps, stages, blocks, shared memory, slot; of a 2:4 weight by default."""
    fields = torch.zeros(6, dtype=torch.int32)
    library().plan_of(tokens, rows, columns, chunk, slot, *device, fields.data_ptr())
    return fields.tolist()


def run(
    x: Tensor,
    packed: Packed2to4 | PackedBitmap,
    reordered: Reordered,
    plan: list[int],
    *,
    bias: Tensor | None = None,
    x_scale: Tensor | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    early: bool = False,
) -> Tensor:
    """y [T, R] in `dtype`, x's by default; `seed` draws which thread goes on, `early` says when
    copies land. `x_scale` [T] beside a weight in fp8.

    Raises:
        AssertionError: what no correct kernel does: an address out of bounds, metadata that do not
            ascend, threads that wait for ever, counters left above zero.
    """
    rows, columns = packed.shape
    y = torch.full((len(x), rows), float("nan"), dtype=dtype or x.dtype)
    scale, starts = getattr(packed, "scale", None), reordered.starts
    weight = reordered.weight
    fields = torch.tensor(plan, dtype=torch.int32)
    addresses = [None if t is None else t.data_ptr() for t in (scale, x_scale, bias)]
    failure = library().run(
        *(weight.data_ptr(), None if starts is None else starts.data_ptr()),
        *(x.data_ptr(), y.data_ptr(), *addresses),
        *(weight.nbytes, x.stride(0), len(x), rows, columns),
        int(bias is not None and bias.dtype == torch.float32),
        fields.data_ptr(),
        *(DTYPES[y.dtype], seed, int(early)),
    )
    assert not failure, failure.decode()
    return y
