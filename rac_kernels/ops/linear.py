"""Linears with packed weights: validate, choose an implementation, call it."""

import importlib

import torch
from torch import Tensor

from rac_kernels import _native, linear_choice
from rac_kernels._checks import FLOATS, check_same_device, refuse
from rac_kernels._choice import choose, native_cpu, needs_backward
from rac_kernels._linear_checks import check_bias, check_once
from rac_kernels.ops.quantize import quantize_fp8_rows
from rac_kernels.packed import Packed2to4, PackedBitmap
from rac_kernels.reference import linear_sparse as reference_linear

# Packing -> what multiplies with it.
IMPLEMENTATIONS = {
    "2:4": ("auto", "reference", "native", "cusparselt", "cutlass"),
    "2:4-fp8": ("auto", "reference", "native", "cusparselt"),
}


def linear_2to4(
    x: Tensor, packed: Packed2to4, bias: Tensor | None = None, *, impl: str = "auto"
) -> Tensor:
    """``x W^T + bias`` with a 2:4 weight that stays packed.

    Args:
        x: bf16, fp16 or fp32 [..., C].
        packed: W [R, C], from :func:`pack_2to4`.
        bias: [R] or None.
        impl: "auto", "reference", "native", "cusparselt", "cutlass" (compute capability 8.x). All
            but the reference have no backward: auto takes the reference where one is needed, else
            what linear_choice.py says. The first call of "native" or "cusparselt" with a weight
            makes what it reads beside, or instead of, what is packed, and keeps it with the weight.

    Returns:
        [..., R] in the dtype of ``x``; sums are float32. The last two round a sum to the dtype of
        ``x`` before a scale, and the last before the bias. Where a CPU multiplies bf16 itself,
        "native" takes subnormal numbers for 0, and from 512 tokens on, in bf16 with AMX, unpacks
        the weight for torch's product.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, ``impl`` cannot run, or the
            weight is none that packing makes, which is looked at once.
    """
    op = "linear_2to4"
    _check(op, x, packed, Packed2to4, bias)
    name = _choose_2to4(op, "2:4", impl, x, packed, bias)
    if name == "reference" or 0 in (x.numel(), packed.rows):
        return reference_linear.linear_2to4(x, packed, bias)
    if name in ("cusparselt", "cutlass"):
        return getattr(_torch_sparse(), name)(x, packed, bias)
    if x.is_cuda:
        return _native.linear_2to4_cuda(x, packed, bias)
    return _native.linear_packed(x, packed, bias)


def linear_2to4_fp8(
    x: Tensor, packed: Packed2to4, bias: Tensor | None = None, *, impl: str = "auto"
) -> Tensor:
    """``x W^T + bias`` with a 2:4 weight in fp8, x rounded to fp8 by :func:`quantize_fp8_rows`.

    Args:
        x: bf16, fp16 or fp32 [..., C].
        packed: W [R, C] in fp8_e4m3, its scale by row or None.
        bias: [R] or None.
        impl: "auto", "reference", "native" (the CPU, in one kernel; on a GPU at most 64 tokens,
            bf16 or fp16), "cusparselt" (compute capability 9.0). All but the reference have no
            backward: auto takes the reference where one is needed, else what linear_choice.py says.
            The first call with a weight is as in :func:`linear_2to4`.

    Returns:
        [..., R] in the dtype of ``x``: products of e4m3 values, summed in float32, times the
        weight's scale, times the token's, plus bias, rounded once. A token that is not finite
        gives NaN.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, ``impl`` cannot run, or the
            weight is none that packing makes, which is looked at once.
    """
    op = "linear_2to4_fp8"
    _check(op, x, packed, Packed2to4, bias)
    if packed.dtype != torch.float8_e4m3fn:
        raise TypeError(f"{op}: expected a weight packed in float8_e4m3fn, got {packed.dtype}")
    name = _choose_2to4(op, "2:4-fp8", impl, x, packed, bias)
    if name == "reference" or 0 in (x.numel(), packed.rows):
        return reference_linear.linear_2to4_fp8(x, packed, bias)
    if x.is_cpu:
        return _native.linear_packed(x, packed, bias, rounds_x=True)
    values, scale = quantize_fp8_rows(x.reshape(-1, x.shape[-1]).contiguous())
    run = _torch_sparse().cusparselt_fp8 if name == "cusparselt" else _native.linear_2to4_fp8_cuda
    y = run(values, scale, packed, bias, x.dtype)
    return y.view(*x.shape[:-1], packed.rows)


def linear_bitmap(
    x: Tensor, packed: PackedBitmap, bias: Tensor | None = None, *, impl: str = "auto"
) -> Tensor:
    """``x W^T + bias`` with an unstructured sparse weight that stays packed.

    Args:
        x: bf16, fp16 or fp32 [..., C].
        packed: W [R, C], from :func:`pack_bitmap`.
        bias: [R] or None.
        impl: "auto", "reference", "native" (the CPU, and auto's choice there; on a GPU at most 64
            tokens, bf16 or fp16). The last has no backward: auto takes the reference where one is
            needed, and on a GPU, where "native" is not yet measured.

    Returns:
        [..., R] in the dtype of ``x``; sums are float32. A CPU's products of bf16 are as in
        :func:`linear_2to4`.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, ``impl`` cannot run, or the
            weight is none that packing makes, which is looked at once.
    """
    op = "linear_bitmap"
    _check(op, x, packed, PackedBitmap, bias)
    why_not = _native.why_not_cuda(x, packed) if x.is_cuda else native_cpu(x)
    reason = _backward(x, packed.values, bias) or why_not
    auto = () if x.is_cuda else ("native",)
    name = choose(op, impl, {"reference", "native"}, reason, auto=auto)
    if name == "reference" or x.numel() == 0 or packed.shape[0] == 0:
        return reference_linear.linear_bitmap(x, packed, bias)
    if x.is_cuda:
        return _native.linear_bitmap_cuda(x, packed, bias)
    return _native.linear_packed(x, packed, bias)


def linear_status() -> dict[str, str]:
    """Which implementations of the sparse linears can run here, and what "auto" takes when."""
    status = {"native (cpu)": native_cpu(torch.empty(0)) or "ok"}
    status |= _torch_sparse().status()
    return status | {f"auto {n}": line for n, line in enumerate(linear_choice.table(), 1)}


def _choose_2to4(
    op: str, packing: str, impl: str, x: Tensor, packed: Packed2to4, bias: Tensor | None
) -> str:
    """Name the implementation to run."""
    known = IMPLEMENTATIONS[packing]
    if impl not in (*known, "triton"):
        refuse(op, f"impl one of {', '.join(known)}", repr(impl))
    if impl == "triton":
        names = ", ".join(known[1:])
        raise ValueError(f"{op}: impl='triton' does not exist for this op, which has {names}")
    if impl == "reference":
        return impl
    backward = _backward(x, packed.values, bias)
    if impl != "auto":
        reason = backward or _why_not(packing, impl, x, packed)
        if reason is not None:
            raise ValueError(f"{op}: impl={impl!r} cannot run: {reason}")
        return impl
    if backward is not None:
        return "reference"
    names = ("native",)
    if x.is_cuda:
        names = linear_choice.gpu_implementations(packing, x.device, _tokens(x))
    usable = (name for name in names if _why_not(packing, name, x, packed) is None)
    return next(usable, "reference")


def _why_not(packing: str, impl: str, x: Tensor, packed: Packed2to4) -> str | None:
    """None when ``impl`` can multiply x with ``packed``, else why not."""
    if packing == "2:4-fp8" and impl == "cusparselt":
        return _torch_sparse().why_not_cusparselt_fp8(x, packed)
    if impl == "cusparselt":
        return _torch_sparse().why_not_cusparselt(x, packed)
    if impl == "cutlass":
        return _torch_sparse().why_not_cutlass(x, packed)
    if packing == "2:4" and x.is_cuda and packed.dtype == torch.float8_e4m3fn:
        return "it takes fp8 weights in linear_2to4_fp8, which rounds x"
    return _native.why_not_cuda(x, packed) if x.is_cuda else native_cpu(x)


def _torch_sparse():
    return importlib.import_module("rac_kernels._torch_sparse")


def _tokens(x: Tensor) -> int:
    return x.numel() // x.shape[-1]


def _backward(*inputs: Tensor | None) -> str | None:
    return needs_backward(*(x for x in inputs if x is not None))


def _check(
    op: str,
    x: Tensor,
    packed: Packed2to4 | PackedBitmap,
    kind: type[Packed2to4] | type[PackedBitmap],
    bias: Tensor | None,
) -> None:
    check_once(op, packed, kind)
    rows, columns = packed.shape
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: expected a tensor for x, got {type(x).__name__}")
    if x.dtype not in FLOATS:
        raise TypeError(f"{op}: expected x in bf16, fp16 or fp32, got {x.dtype}")
    if x.ndim == 0 or x.shape[-1] != columns:
        refuse(op, f"x [..., {columns}] for W {[rows, columns]}", list(x.shape))
    if x.device != packed.values.device:  # naming the devices takes longer than a small product
        check_same_device(op, x=x, packed=packed.values)
    check_bias(op, x, (rows, columns), bias)
