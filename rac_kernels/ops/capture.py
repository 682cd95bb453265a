"""The public functions of capturing: validate, choose an implementation, call it."""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import check_capture, check_like, check_rows, refuse
from rac_kernels._choice import (
    choose,
    native_cpu,
    native_producer,
    triton_producer,
    triton_usable,
)
from rac_kernels.capture import CaptureBuffer, Ring
from rac_kernels.ops.hessian import hessian_accumulate_
from rac_kernels.reference.capture import capture_ as reference_capture
from rac_kernels.reference.rmsnorm_capture import rmsnorm_capture as reference_rmsnorm
from rac_kernels.reference.swiglu_capture import swiglu_capture as reference_swiglu
from rac_kernels.triangle import PackedTriangle

IMPLEMENTATIONS = {"reference", "triton", "native"}


def capture_(
    buffer: CaptureBuffer, x: Tensor, active: Tensor | None = None, *, impl: str = "auto"
) -> None:
    """Append the active rows of ``x`` to the filling half of ``buffer``, in order.

    Outside of a CUDA graph B rows are reserved first, active or not; inside one, whoever replays
    the graph counts them before each replay, with ``buffer.reserve(B)`` or by itself. Rows that do
    not fit all the same are counted as lost, and the next flush raises.

    Args:
        buffer: for rows of D features.
        x: bf16, fp16 or fp32 [..., D], the buffer's dtype, with a unit last stride: B rows.
        active: bool [B] or x.shape[:-1]; None: every row is. An inactive row contributes nothing,
            even if it is not finite.
        impl: "auto", "reference", "triton", "native" (CPU). Triton may be captured in a CUDA graph
            once it has run outside of one (it compiles then); the reference may not.

    Raises:
        ValueError, TypeError: shapes, dtypes, strides or devices do not fit, or B rows might not
            fit any more (flush first); nothing is written.
    """
    op = "capture_"
    check_rows(op, "x", x)
    run = _implementation(op, impl, reference_capture, native_cpu, triton_usable, x)
    ring = ring_of(op, buffer, x, active)
    run(_rows(x), ring)


def rmsnorm_capture(
    x: Tensor,
    weight: Tensor,
    eps: float,
    *,
    buffer: CaptureBuffer | None = None,
    active: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """RMSNorm of ``x``; with a buffer, its output's active rows are appended by the same kernel.

    ``y = weight * (x.float() * rsqrt(mean(x^2) + eps)).to(x.dtype)``: the order of rounding of
    transformers' Llama, Qwen2 and Qwen3 blocks. Only the order in which squares are summed differs
    from torch's, so a normed value may come out one ulp away where it lies between two.

    Args:
        x: bf16, fp16 or fp32 [..., D] with a unit last stride: B rows.
        weight: [D], the dtype of ``x``.
        eps: added to the mean square.
        buffer: of D features; None: nothing is captured.
        active: as in :func:`capture_`; not looked at without a buffer.
        impl: "auto", "reference", "triton", "native" (CPU; float32, bf16). The last two have no
            backward: auto takes the reference where one is needed.

    Returns:
        y, shape and dtype of ``x``, contiguous.

    Raises:
        ValueError, TypeError: as :func:`capture_`; weight or eps does not fit.
    """
    op = "rmsnorm_capture"
    check_rows(op, "x", x)
    check_like(op, "weight", weight, "x", x, x.shape[-1:])
    if not eps >= 0:
        refuse(op, "eps >= 0", eps)
    reasons = native_producer, triton_producer
    run = _implementation(op, impl, reference_rmsnorm, *reasons, x, weight)
    ring = None if buffer is None else ring_of(op, buffer, x, active)
    y = run(_rows(x), weight, eps, ring)
    return y if y.shape == x.shape else y.view(x.shape)


def swiglu_capture(
    gate: Tensor,
    up: Tensor,
    *,
    buffer: CaptureBuffer | None = None,
    active: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """``silu(gate) * up``; with a buffer, its active rows are appended by the same kernel.

    silu is rounded to the dtype before the product, as in torch.

    Args:
        gate: bf16, fp16 or fp32 [..., D] with a unit last stride: B rows.
        up: shape and dtype of ``gate``.
        buffer: of D features; None: nothing is captured.
        active: as in :func:`capture_`; not looked at without a buffer.
        impl: as in :func:`rmsnorm_capture`.

    Returns:
        y, shape and dtype of ``gate``, contiguous.

    Raises:
        ValueError, TypeError: as :func:`capture_`; up does not fit gate.
    """
    op = "swiglu_capture"
    check_rows(op, "gate", gate)
    check_like(op, "up", up, "gate", gate, gate.shape)
    reasons = native_producer, triton_producer
    run = _implementation(op, impl, reference_swiglu, *reasons, gate, up)
    ring = None if buffer is None else ring_of(op, buffer, gate, active)
    y = run(_rows(gate), _rows(up), ring)
    return y if y.shape == gate.shape else y.view(gate.shape)


def flush_(
    buffer: CaptureBuffer,
    hessian: Tensor | PackedTriangle,
    *,
    count: int | None = None,
    check_finite: str | None = None,
) -> int:
    """Add the rows of the filling half to ``hessian``; from now on the other half fills.

    On a GPU the update runs on ``buffer.stream``, after what the current stream holds; call
    ``buffer.wait()`` before anything but another flush of this buffer touches H. Outside of CUDA
    graphs only.

    Args:
        buffer: its ``reserved`` becomes 0.
        hessian: as in :func:`hessian_accumulate_`, with the buffer's D.
        count: ``buffer.state[0]`` if the caller has read it after the last capture; None: it is
            read here, which waits for the device.
        check_finite: the layer's name: look for NaN and Inf first (waits for the device).

    Returns:
        How many rows were added.

    Raises:
        ValueError, TypeError: H does not fit, or NaN or Inf in the rows (names the layer); H and
            the buffer are untouched.
        RuntimeError: rows did not fit in the buffer and are lost: a graph was replayed without
            ``reserve``.
    """
    op = "flush_"
    _check_buffer(op, buffer)
    if buffer.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        refuse(op, "a call outside of a CUDA graph", "one inside")
    if count is None or buffer.device.type == "cpu":
        found = int(buffer.state[0])
        if count not in (None, found):
            refuse(op, f"count {found}, the rows in the buffer", count)
        count = found
    if count > buffer.slots:
        raise RuntimeError(
            f"{op}: {count - buffer.slots} of {count} rows did not fit in {buffer.slots} slots and "
            "are lost: call reserve() before every replay of a CUDA graph"
        )
    if count < 0:
        refuse(op, "count >= 0", count)
    rows = buffer.rows[buffer.half, :count]  # [count, D]
    if check_finite is not None and count:
        _refuse_non_finite(op, check_finite, rows)
    values = hessian.data if isinstance(hessian, PackedTriangle) else hessian
    with buffer.flushing(values):
        hessian_accumulate_(hessian, rows)
    return count


def _refuse_non_finite(op: str, layer: str, rows: Tensor) -> None:
    if not all(bool(end.isfinite()) for end in rows.aminmax()):  # NaN wins; one read
        bad = int((~rows.isfinite().all(1)).sum())
        refuse(op, f"finite activations of {layer}", f"NaN or Inf in {bad} of {len(rows)} rows")


def _check_buffer(op: str, buffer: CaptureBuffer) -> None:
    if not isinstance(buffer, CaptureBuffer):
        raise TypeError(f"{op}: expected a CaptureBuffer, got {type(buffer).__name__}")


def ring_of(op: str, buffer: CaptureBuffer, x: Tensor, active: Tensor | None) -> Ring:
    """What the kernel is handed, once all rows of x are sure to fit."""
    _check_buffer(op, buffer)
    check_capture(op, buffer, x, active)
    if not x.is_cuda or not torch.cuda.is_current_stream_capturing():
        buffer.reserve(x.numel() // buffer.features)
    if active is not None and (active.ndim != 1 or not active.is_contiguous()):
        active = active.reshape(-1).contiguous()
    return Ring(buffer.rows, buffer.state, active)


def _rows(x: Tensor) -> Tensor:
    """View x [..., D] as what the kernels take: contiguous, or [B, D] with any stride of rows."""
    return x if x.is_contiguous() or x.ndim == 2 else x.reshape(-1, x.shape[-1])


def _implementation(
    op: str,
    impl: str,
    reference: Callable,
    native: Callable[..., str | None],
    triton: Callable[..., str | None],
    *inputs: Tensor,
) -> Callable:
    """The function that runs: C++ on a CPU, Triton on a GPU, the reference where they cannot.

    ``native`` and ``triton`` say why those cannot take ``inputs``, and are asked only if it
    matters: this runs hundreds of times in a decode step on a CPU.
    """
    on_cpu = inputs[0].is_cpu
    if impl == "auto" and on_cpu and native(*inputs) is None:
        return getattr(_native, op)
    why_not_native = native(*inputs) if impl == "native" else "it runs on the CPU"
    why_not_triton = "it runs on a GPU"
    if impl == "triton" or not on_cpu:
        why_not_triton = triton(*inputs)
    chosen = choose(
        op, impl, IMPLEMENTATIONS, why_not_native, triton=why_not_triton, auto=("triton",)
    )
    if chosen == "native":
        return getattr(_native, op)
    if chosen == "triton":
        return getattr(importlib.import_module(f"rac_kernels._triton.{op.rstrip('_')}"), op)
    return reference
