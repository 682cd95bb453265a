"""Which implementation runs: auto may choose, an explicit one never falls back."""

import functools
import importlib.util
import logging
import os

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import refuse
from rac_kernels.pattern import Pattern

logger = logging.getLogger(__name__)

HALVES = (torch.bfloat16, torch.float16)
FEW_TOKENS = 8  # up to which reading a dense weight is most of the work, whatever multiplies
TILED_TOKENS = 64  # up to which our tiles of bf16 are as fast as torch's, and need no threads woken
IMPLEMENTATIONS = ("auto", "reference", "triton", "native")
# CUDA's ranking takes m^2 compares a group: beyond this, selection is the better algorithm.
NATIVE_MAX_M = 128


def choose(
    op: str,
    impl: str,
    available: set[str],
    native: str | None = None,
    *,
    triton: str | None = None,
    auto: tuple[str, ...] = ("native",),
) -> str:
    """Name the implementation to run.

    Args:
        op: for the message.
        impl: what the caller asked for.
        available: what this op has.
        native: why native cannot run, None when it can.
        triton: why Triton cannot, None when it can.
        auto: what impl="auto" takes, the first that can run; the reference if none can.
    """
    if impl not in IMPLEMENTATIONS:
        refuse(op, f"impl one of {', '.join(IMPLEMENTATIONS)}", repr(impl))
    reasons = {"native": native, "triton": triton}
    if impl == "auto":
        usable = (name for name in auto if name in available and reasons[name] is None)
        return next(usable, "reference")
    if impl not in available:
        names = ", ".join(sorted(available))
        raise ValueError(f"{op}: impl={impl!r} does not exist for this op, which has {names}")
    if reasons.get(impl) is not None:
        raise ValueError(f"{op}: impl={impl!r} cannot run: {reasons[impl]}")
    return impl


def triton_usable(tensor: Tensor) -> str | None:
    """None when a Triton kernel can take ``tensor``, else why not; triton is not imported."""
    device = tensor.device
    if device.type == "cpu":
        if os.environ.get("TRITON_INTERPRET") != "1":
            return "it runs on a GPU, and the tensor is on the CPU (TRITON_INTERPRET is not 1)"
    elif device.type != "cuda" or torch.version.hip is not None:
        return f"it runs on an NVIDIA GPU, and the tensor is on {device}"
    elif torch.cuda.get_device_capability(device) < (8, 0):
        return f"it needs compute capability 8.0, which {device} has not"
    return None if _triton_installed() else "triton is not installed"


@functools.cache
def _triton_installed() -> bool:
    try:
        return importlib.util.find_spec("triton") is not None
    except ModuleNotFoundError:
        return False


def triton_hessian(hessian: Tensor) -> str | None:
    """None when the Triton rank-k update can write ``hessian``, its values, else why not."""
    if hessian.numel() > 1 and hessian.stride(-1) != 1:
        return f"it needs a hessian with a unit last stride, got strides {hessian.stride()}"
    return triton_usable(hessian)


def native_hessian(hessian: Tensor) -> str | None:
    """None when the C++ rank-k update can write ``hessian``, its values, else why not."""
    if hessian.device.type != "cpu":
        return f"it runs on the CPU, and the tensor is on {hessian.device}"
    matrix = hessian.ndim == 2 and hessian.numel() > 1
    if matrix and (hessian.stride(1) != 1 or hessian.stride(0) < hessian.shape[1]):
        return f"it needs a hessian with a unit last stride, got strides {hessian.stride()}"
    return _missing("cpu")


def auto_hessian(hessian: Tensor) -> tuple[str, ...]:
    """Name what impl="auto" takes for ``hessian``, its values, the first that can run.

    Without AVX2 the C++ kernel is no faster than the BLAS that the reference calls.
    """
    if hessian.is_cuda:
        return ("triton",)
    return ("native",) if _has_avx2() else ()


def _has_avx2() -> bool:
    """Whether the C++ kernels are there and run on AVX2 or better."""
    return _missing("cpu") is None and _native.instruction_set() != "baseline"


def auto_dense(x: Tensor, weight: Tensor) -> tuple[str, ...]:
    """Name what impl="auto" takes for ``x`` [..., C] and a dense ``weight``."""
    if not x.is_cpu or weight.dtype not in HALVES or not _has_avx2():
        return ()
    tiles = x.dtype == weight.dtype == torch.bfloat16 and _native.instruction_set() == "amx"
    few = x.numel() <= (TILED_TOKENS if tiles else FEW_TOKENS) * x.shape[-1]
    return ("native",) if few or not _products_in_hardware(weight.dtype) else ()


def _products_in_hardware(dtype: torch.dtype) -> bool:
    """Whether the CPU multiplies matrices of ``dtype`` itself; True where torch cannot say."""
    kind = "bf16" if dtype == torch.bfloat16 else "fp16"
    asked = getattr(torch.ops.mkldnn, f"_is_mkldnn_{kind}_supported", None)
    return asked is None or asked()


def auto_factor(hessian: Tensor) -> tuple[str, ...]:
    """Name what impl="auto" takes for the factor of ``hessian`` [C, C], the first that can run."""
    if not hessian.is_cuda:
        return auto_hessian(hessian)
    from rac_kernels._triton import tuning

    least = tuning.factor_from(hessian.device)
    return ("triton",) if least is not None and hessian.shape[0] >= least else ()


def triton_mask(scores: Tensor, pattern: Pattern, per: str, block_size: int) -> str | None:
    """None when the Triton selection can take ``scores``, else why not."""
    rows, columns = scores.shape
    numel = {"row": columns, "block": rows * min(block_size, columns), "layer": rows * columns}[per]
    if not pattern.structured and numel >= 2**31:
        return f"it takes less than 2^31 scores a {per}, and there are {numel}"
    return triton_usable(scores)


def triton_block(weights: list[Tensor], block_size: int) -> str | None:
    """None when the Triton block solve can take ``weights``, else why not."""
    columns = min(block_size, weights[0].shape[1])
    largest = max(columns, *(weight.shape[0] for weight in weights)) * columns
    if largest >= 2**31:
        return f"it takes less than 2^31 weights a block, and there are {largest}"
    return triton_usable(weights[0])


def native_cpu(tensor: Tensor) -> str | None:
    """None when a C++ kernel can take ``tensor``, else why not."""
    if not tensor.is_cpu:
        return f"it runs on the CPU, and the tensor is on {tensor.device}"
    return _missing("cpu")


def native_producer(*inputs: Tensor) -> str | None:
    """None when a C++ kernel that computes and captures can take ``inputs``, else why not."""
    if inputs[0].dtype == torch.float16:
        return "it takes float32 and bfloat16, not float16"
    return needs_backward(*inputs) or native_cpu(inputs[0])


def triton_producer(*inputs: Tensor) -> str | None:
    """None when a Triton kernel that computes and captures can take ``inputs``, else why not."""
    return needs_backward(*inputs) or triton_usable(inputs[0])


def needs_backward(*inputs: Tensor) -> str | None:
    """Why a kernel without a backward cannot take ``inputs``, None when none is needed."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        return "it has no backward, and an input requires a gradient; use torch.no_grad()"
    return None


def native_mask(scores: Tensor, pattern: Pattern) -> str | None:
    """None when a compiled selection can take ``scores``, else why not."""
    if scores.device.type not in ("cpu", "cuda"):
        return f"it runs on the CPU or a GPU, and the tensor is on {scores.device}"
    if scores.is_cuda and not pattern.structured:
        return f"on a GPU it selects n:m masks, and the pattern is {pattern}"
    if scores.is_cuda and pattern.m > NATIVE_MAX_M:
        return f"on a GPU it takes m <= {NATIVE_MAX_M}, and the pattern is {pattern}"
    return _missing(scores.device.type)


def native_packing(tensor: Tensor) -> str | None:
    """None when a compiled 2:4 packing can take ``tensor``, else why not."""
    if tensor.device.type not in ("cpu", "cuda"):
        return f"it runs on the CPU or a GPU, and the tensor is on {tensor.device}"
    return _missing(tensor.device.type)


@functools.cache
def _missing(device: str) -> str | None:
    """Why the compiled module for ``device`` is missing, logged the first time it is needed."""
    reason = _native.why_missing(device)
    if reason is not None and device == "cpu":
        logger.warning("slower, on torch alone: %s", reason)
    return reason
