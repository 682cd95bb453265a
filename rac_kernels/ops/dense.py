"""Linears with dense weights of 16 bits: validate, choose an implementation, call it."""

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import FLOATS, check_same_device, refuse
from rac_kernels._choice import HALVES, auto_dense, choose, native_cpu, needs_backward
from rac_kernels._linear_checks import check_bias
from rac_kernels.reference.linear_sparse import linear_dense as reference_linear


def linear_dense(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, impl: str = "auto"
) -> Tensor:
    """``x W^T + bias`` with a dense weight that is read once, at memory speed, for a few tokens.

    It is what a sparse model keeps dense, its head above all: torch's own products of 16 bits reach
    half of a CPU's bandwidth at one token, and no more than arithmetic in software after that.

    Args:
        x: bf16, fp16 or fp32 [..., C].
        weight: W [R, C]; "native" takes bf16 and fp16.
        bias: [R] or None.
        impl: "auto", "reference" (torch in float32), "native" (the CPU; no backward). Auto takes
            "native" on a CPU with AVX2 up to 8 tokens (64 in bf16 with AMX), and beyond where it
            has no instructions for products of 16 bits; else ``torch.nn.functional.linear``
            where x and W have one dtype, as that rounds, else the reference.

    Returns:
        [..., R] in the dtype of ``x``; sums of "native" and "reference" are float32, rounded once.
        Where the CPU multiplies bf16 itself, "native" takes subnormal numbers for 0.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or ``impl`` cannot run.
    """
    op = "linear_dense"
    _check(op, x, weight, bias)
    why_not = _why_not_native(x, weight, bias)
    name = choose(op, impl, {"reference", "native"}, why_not, auto=auto_dense(x, weight))
    if name == "native" and x.numel() and weight.shape[0]:
        return _native.linear_dense(x, weight, bias)
    if impl == "auto" and x.dtype == weight.dtype:
        return torch.nn.functional.linear(x, weight, None if bias is None else bias.to(x.dtype))
    return reference_linear(x, weight, bias)


def _why_not_native(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    if weight.dtype not in HALVES:
        return f"it takes a weight in bf16 or fp16, not {weight.dtype}"
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return needs_backward(*inputs) or native_cpu(x)


def _check(op: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for name, tensor in (("x", x), ("weight", weight)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op}: expected a tensor for {name}, got {type(tensor).__name__}")
        if tensor.dtype not in FLOATS:
            raise TypeError(f"{op}: expected {name} in bf16, fp16 or fp32, got {tensor.dtype}")
    if weight.ndim != 2:
        refuse(op, "weight [R, C]", list(weight.shape))
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        refuse(op, f"x [..., {weight.shape[1]}] for W {list(weight.shape)}", list(x.shape))
    if x.device != weight.device:
        check_same_device(op, x=x, weight=weight)
    check_bias(op, x, tuple(weight.shape), bias)
