"""Linears with packed weights in CUDA, for the 1 to 64 tokens of a decode step."""

import functools
import math
import types
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rac_kernels._native.loading import CUDA, DTYPES, load, why_missing
from rac_kernels.packed import Packed2to4

MAX_TOKENS = 64
STRIP, CHUNK = 32, 128  # rows and columns of what a warp takes at once: layout_2to4.h
HALVES = (torch.bfloat16, torch.float16)

_reordered: WeakKeyDictionary[Packed2to4, Tensor] = WeakKeyDictionary()
# (device, stream) -> the capture into a graph they belong to, 0 if none, and zeros.
_counters: dict[tuple[int, int], tuple[int, Tensor]] = {}


def why_not_cuda(x: Tensor, packed: Packed2to4) -> str | None:
    """None when the CUDA kernel can take ``x`` [..., C] and W [R, C], else why not."""
    if x.device.type != "cuda" or torch.version.hip is not None:
        return f"it runs on an NVIDIA GPU, and the tensor is on {x.device}"
    if torch.cuda.get_device_capability(x.device) < (8, 0):
        return f"it needs compute capability 8.0, which {x.device} has not"
    return _why_unfit(x, packed) or why_missing("cuda")


def _why_unfit(x: Tensor, packed: Packed2to4) -> str | None:
    if packed.dtype not in HALVES or x.dtype != packed.dtype:
        return f"it takes x and W in bf16 or both in fp16, got {x.dtype} and {packed.dtype}"
    if packed.shape[1] % 32:
        return f"it takes in_features that are a multiple of 32, got {packed.shape[1]}"
    tokens = math.prod(x.shape[:-1])
    if tokens > MAX_TOKENS:
        return f"it takes at most {MAX_TOKENS} tokens, got {tokens}"
    if torch.is_grad_enabled() and x.requires_grad:
        return "it has no backward, and an input requires a gradient; use torch.no_grad()"
    return None


def reorder_2to4(packed: Packed2to4) -> Tensor:
    """W [R, C] in the order in which warps read it: int32 [R / 32, C / 128, 9, 32, 4], padded.

    The last four dimensions are those of csrc/cuda/layout_2to4.h: vectors, lanes, words.
    """
    rows, half = packed.values.shape
    strips, chunks = rows // STRIP, -(-2 * half // CHUNK)
    pad = chunks * CHUNK - 2 * half
    values = torch.nn.functional.pad(packed.values.view(torch.int32), (0, pad // 4))
    # Row 16 h + 8 j + g, pair of values 16 s + 4 k + t of its chunk: word 2 k + j of lane 4 g + t.
    values = values.view(strips, 2, 2, 8, chunks, 4, 2, 4)  # strip h j g chunk s k t
    values = values.permute(0, 4, 5, 1, 3, 7, 6, 2).reshape(strips, chunks, 8, 32, 4)
    # CUTLASS's order already has a lane's word for 32 columns in its place.
    words = packed.metadata.view(torch.int32).view(half // 16, strips, 32)
    words = torch.nn.functional.pad(words, (0, 0, 0, 0, 0, pad // 32), value=_PADDING)
    words = words.view(chunks, 4, strips, 32).permute(2, 0, 3, 1)
    return torch.cat([values, words[:, :, None]], 2).contiguous()


# Positions 0 and 1 in every group: mma.sp wants two that ascend, whatever the values.
_PADDING = 0x44444444


def linear_2to4_cuda(x: Tensor, packed: Packed2to4, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` [..., R] of at most 64 tokens x [..., C], summed in float32, rounded once.

    W is reordered at its first use, a copy of its size that lives as long as ``packed``.

    Raises:
        RuntimeError: CUDA's error; or the first use is in a capture into a CUDA graph.
    """
    rows, columns = packed.shape
    y = x.new_empty(*x.shape[:-1], rows)
    if y.numel() == 0:
        return y
    x = x.reshape(-1, columns)
    if x.stride(1) != 1 or x.stride(0) % 8 or x.data_ptr() % 16:
        x = x.clone(memory_format=torch.contiguous_format)
    with torch.cuda.device(x.device):
        _launch(load(CUDA), x, packed, bias, y)
    return y


def _launch(
    module: types.ModuleType, x: Tensor, packed: Packed2to4, bias: Tensor | None, y: Tensor
) -> None:
    rows, columns = packed.shape
    sizes = {"tokens": len(x), "rows": rows, "columns": columns}
    plan = module.linear_2to4_plan(**sizes, **_limits(x.device.index))
    stream = torch.cuda.current_stream().cuda_stream
    capture = module.capture_of(stream)
    weight = _reordered.get(packed)
    if weight is None:
        if capture:
            raise RuntimeError(
                "linear_2to4: expected a weight that was used before a CUDA graph captures it, got "
                f"a first use of W {[rows, columns]} in the capture; call it once before"
            )
        weight = _reordered[packed] = reorder_2to4(packed)
    partials = torch.empty(plan.partials, dtype=torch.float32, device=x.device)
    scale = None if packed.scale is None else packed.scale.contiguous()
    if bias is not None:
        bias = (bias if bias.dtype in (x.dtype, torch.float32) else bias.float()).contiguous()
    module.linear_2to4(
        weight=weight.data_ptr(),
        x=x.data_ptr(),
        y=y.data_ptr(),
        scale=0 if scale is None else scale.data_ptr(),
        bias=0 if bias is None else bias.data_ptr(),
        partials=partials.data_ptr(),
        arrived=_zeros(x.device, stream, capture, plan.blocks).data_ptr(),
        stride=x.stride(0),
        **sizes,
        bias_is_float=bias is not None and bias.dtype == torch.float32,
        plan=plan,
        dtype=DTYPES[x.dtype],
        stream=stream,
    )


@functools.cache
def _limits(device: int) -> dict[str, int]:
    names = ("sms", "shared_block", "shared_sm")
    return dict(zip(names, load(CUDA).device_limits(device), strict=True))


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
