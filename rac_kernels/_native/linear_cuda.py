"""Linears with packed weights in CUDA, for the 1 to 64 tokens of a decode step."""

import functools
import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rac_kernels._native.loading import CUDA, DTYPES, load, why_missing
from rac_kernels._native.reorder import (
    CHUNK_2TO4,
    CHUNK_BITMAP,
    Reordered,
    reorder_2to4,
    reorder_bitmap,
)
from rac_kernels.packed import Packed2to4, PackedBitmap

MAX_TOKENS = 64
HALVES = (torch.bfloat16, torch.float16)

_reordered: WeakKeyDictionary[Packed2to4 | PackedBitmap, Reordered] = WeakKeyDictionary()
# (device, stream) -> the capture into a graph they belong to, 0 if none, and zeros.
_counters: dict[tuple[int, int], tuple[int, Tensor]] = {}


def why_not_cuda(x: Tensor, packed: Packed2to4 | PackedBitmap) -> str | None:
    """None when the CUDA kernel can take ``x`` [..., C] and W [R, C], else why not."""
    if x.device.type != "cuda" or torch.version.hip is not None:
        return f"it runs on an NVIDIA GPU, and the tensor is on {x.device}"
    if torch.cuda.get_device_capability(x.device) < (8, 0):
        return f"it needs compute capability 8.0, which {x.device} has not"
    return _why_unfit(x, packed) or why_missing("cuda")


def _why_unfit(x: Tensor, packed: Packed2to4 | PackedBitmap) -> str | None:
    if packed.dtype == torch.float8_e4m3fn:
        if x.dtype not in HALVES:
            return f"it takes x in bf16 or fp16, got {x.dtype}"
    elif packed.dtype not in HALVES or x.dtype != packed.dtype:
        return f"it takes x and W in bf16 or both in fp16, got {x.dtype} and {packed.dtype}"
    multiple = 32 if isinstance(packed, Packed2to4) else 8
    if packed.shape[1] == 0 or packed.shape[1] % multiple:
        return f"it takes in_features that are a multiple of {multiple}, got {packed.shape[1]}"
    tokens = math.prod(x.shape[:-1])
    if tokens > MAX_TOKENS:
        return f"it takes at most {MAX_TOKENS} tokens, got {tokens}"
    if torch.is_grad_enabled() and x.requires_grad:
        return "it has no backward, and an input requires a gradient; use torch.no_grad()"
    return None


def linear_2to4_cuda(x: Tensor, packed: Packed2to4, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` [..., R] of at most 64 tokens x [..., C], summed in float32, rounded once.

    W is reordered at its first use, a copy of its size that lives as long as ``packed``.

    Raises:
        RuntimeError: CUDA's error; or the first use is in a capture into a CUDA graph.
    """
    return _linear("linear_2to4", x, packed, bias)


def linear_2to4_fp8_cuda(
    values: Tensor, x_scale: Tensor, packed: Packed2to4, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """``x W^T + bias`` [T, R] in ``dtype``, bf16 or fp16, of x as e4m3 [T, C] and scales [T].

    At most 64 tokens, products summed in float32, rounded once; W as in :func:`linear_2to4_cuda`.

    Raises:
        RuntimeError: CUDA's error; or the first use is in a capture into a CUDA graph.
    """
    x = values.to(torch.float16)  # which has every value of e4m3
    return _linear("linear_2to4_fp8", x, packed, bias, x_scale, dtype)


def linear_bitmap_cuda(x: Tensor, packed: PackedBitmap, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` [..., R] of at most 64 tokens x [..., C], summed in float32, rounded once.

    W is reordered at its first use, a copy of its size that lives as long as ``packed``.

    Raises:
        RuntimeError: CUDA's error; or the first use is in a capture into a CUDA graph.
    """
    return _linear("linear_bitmap", x, packed, bias)


def _linear(
    op: str,
    x: Tensor,
    packed: Packed2to4 | PackedBitmap,
    bias: Tensor | None,
    x_scale: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    rows, columns = packed.shape
    y = x.new_empty(*x.shape[:-1], rows, dtype=dtype)
    if y.numel() == 0:
        return y
    x = x.reshape(-1, columns)
    if x.stride(1) != 1 or x.stride(0) % 8 or x.data_ptr() % 16:
        x = x.clone(memory_format=torch.contiguous_format)
    if bias is not None:
        bias = (bias if bias.dtype in (y.dtype, torch.float32) else bias.float()).contiguous()
    with torch.cuda.device(x.device):
        _launch(op, x, packed, bias, y, x_scale)
    return y


def _launch(
    op: str,
    x: Tensor,
    packed: Packed2to4 | PackedBitmap,
    bias: Tensor | None,
    y: Tensor,
    x_scale: Tensor | None,
) -> None:
    module, stream = load(CUDA), torch.cuda.current_stream().cuda_stream
    capture = module.capture_of(stream)
    weight = _weight(op, packed, capture)
    sizes = {"tokens": len(x), "rows": packed.shape[0], "columns": packed.shape[1]}
    chunk = CHUNK_2TO4 if weight.starts is None else CHUNK_BITMAP
    plan = module.linear_plan(
        **sizes, chunk=chunk, slot=weight.slot, device=_device(x.device.index)
    )
    partials = torch.empty(plan.partials, dtype=torch.float32, device=x.device)
    scale = getattr(packed, "scale", None)
    scale = None if scale is None else scale.contiguous()
    tensors = {"weight": weight.weight, "starts": weight.starts, "x": x, "y": y, "scale": scale}
    tensors |= {"x_scale": x_scale, "bias": bias, "partials": partials}
    module.linear(
        **{name: 0 if t is None else t.data_ptr() for name, t in tensors.items()},
        arrived=_zeros(x.device, stream, capture, plan.blocks).data_ptr(),
        stride=x.stride(0),
        **sizes,
        bias_is_float=bias is not None and bias.dtype == torch.float32,
        plan=plan,
        dtype=DTYPES[y.dtype],
        stream=stream,
    )


def _weight(op: str, packed: Packed2to4 | PackedBitmap, capture: int) -> Reordered:
    """Reordered, once for each packed weight."""
    found = _reordered.get(packed)
    if found is None:
        if capture:
            raise RuntimeError(
                f"{op}: expected a weight that was used before a CUDA graph captures it, got a "
                f"first use of W {list(packed.shape)} in the capture; call it once before"
            )
        reorder = reorder_2to4 if isinstance(packed, Packed2to4) else reorder_bitmap
        found = _reordered[packed] = reorder(packed.map(Tensor.contiguous))
    return found


@functools.cache
def _device(number: int) -> tuple[int, int, int]:
    """Multiprocessors, bytes of shared memory for a block and for all blocks of one."""
    return load(CUDA).device_limits(number)


def _zeros(device: torch.device, stream: int, capture: int, count: int) -> Tensor:
    """At least ``count`` counters that every launch leaves at zero.

    Launches of one stream follow each other and share them. So do those of one capture, whose first
    use records the zeroing into the graph: a graph's counters are no other graph's.
    """
    key = (device.index, stream)
    held, counters = _counters.get(key, (0, None))
    if counters is None or held != capture or len(counters) < count:
        counters = torch.zeros(max(count, 1024), dtype=torch.int32, device=device)
        _counters[key] = (capture, counters)
    return counters
