"""What the tests of the capture kernels share."""

import pytest
import torch
from numeric import native
from torch import Tensor
from triton_interpreter import DEVICE, needs_triton

from rac_kernels import CaptureBuffer

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Every implementation: reference and C++ on the CPU, Triton on the GPU or in the interpreter.
on_device = [needs_triton, pytest.mark.gpu] if DEVICE == "cuda" else needs_triton
every_impl = pytest.mark.parametrize(
    "impl",
    ["reference", pytest.param("native", marks=native), pytest.param("triton", marks=on_device)],
)


def device_of(impl: str) -> str:
    return DEVICE if impl == "triton" else "cpu"


def skip_fp16_on_the_cpu(impl: str, dtype: torch.dtype) -> None:
    if impl == "native" and dtype == torch.float16:
        pytest.skip("the C++ kernels compute in float32 and bf16")


def random(*shape: int, dtype: torch.dtype, impl: str, seed: int = 0, scale: float = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(*shape, generator=generator)
    return x.to(device_of(impl), dtype)


def activity(rows: int, impl: str, seed: int = 0, share: float = 0.6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(rows, generator=generator) < share).to(device_of(impl))


def buffer_for(x: Tensor, slots: int, **options) -> CaptureBuffer:
    return CaptureBuffer(slots, x.shape[-1], dtype=x.dtype, device=x.device, **options)


def staged(buffer: CaptureBuffer) -> Tensor:
    """The rows in the filling half."""
    return buffer.rows[buffer.half, : int(buffer.state[0])]


def strided(x: Tensor) -> Tensor:
    """The same values with rows that are not adjacent."""
    rows, features = x.shape
    wide = x.new_full((rows, features + 3), float("nan"))
    wide[:, 1:-2] = x
    return wide[:, 1:-2]
