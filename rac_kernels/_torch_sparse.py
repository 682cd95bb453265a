"""2:4 products that torch brings for GPUs: cuSPARSELt, and CUTLASS on compute capability 8.x."""

import weakref

import torch
from torch import Tensor
from torch.nn.functional import pad

from rac_kernels.packed import Packed2to4
from rac_kernels.reference.pack_2to4 import unpack_2to4

HALVES = (torch.bfloat16, torch.float16)
# Multiples that torch/sparse/semi_structured.py asks of R and C, and of the tokens.
CUSPARSELT_MULTIPLES, CUTLASS_MULTIPLES, TOKENS = (16, 16), (32, 64), 8
FP8_MULTIPLES, FP8_TOKENS = (32, 32), 16
# cuSPARSELt's own packing, made from the dense weight; an entry goes with its weight.
_compressed: weakref.WeakKeyDictionary[Packed2to4, Tensor] = weakref.WeakKeyDictionary()


def status() -> dict[str, str]:
    """Implementation -> "ok" or why it cannot run on this machine, versions included."""
    if not torch.cuda.is_available() or torch.version.hip is not None:
        return dict.fromkeys(("cusparselt", "cutlass"), "no NVIDIA GPU")
    found = {"cusparselt": "this torch has no cuSPARSELt", "cutlass": "ok"}
    if torch.backends.cusparselt.is_available():
        found["cusparselt"] = f"ok, version {torch.backends.cusparselt.version()}"
    capability = torch.cuda.get_device_capability()
    if capability[0] != 8:
        found["cutlass"] = f"runs on compute capability 8.x, not {capability[0]}.{capability[1]}"
    return found


def why_not_cusparselt(x: Tensor, packed: Packed2to4) -> str | None:
    """None when cuSPARSELt can multiply x [..., C] with ``packed``, else why not."""
    reason = _why_not(x, packed, CUSPARSELT_MULTIPLES)
    if reason is None and not torch.backends.cusparselt.is_available():
        return "this torch has no cuSPARSELt"
    return reason


def why_not_cusparselt_fp8(x: Tensor, packed: Packed2to4) -> str | None:
    """None when cuSPARSELt can multiply x [..., C], once it is fp8, with ``packed``."""
    reason = _why_not(x, packed, FP8_MULTIPLES, same_dtype=False)
    if reason is None and torch.cuda.get_device_capability(x.device) < (9, 0):
        return f"it multiplies fp8 from compute capability 9.0 on, which {x.device} has not"
    if reason is None and not torch.backends.cusparselt.is_available():
        return "this torch has no cuSPARSELt"
    return reason


def why_not_cutlass(x: Tensor, packed: Packed2to4) -> str | None:
    """None when torch's CUTLASS kernel can multiply x [..., C] with ``packed``, else why not."""
    reason = _why_not(x, packed, CUTLASS_MULTIPLES)
    if reason is None and torch.cuda.get_device_capability(x.device)[0] != 8:
        capability = ".".join(map(str, torch.cuda.get_device_capability(x.device)))
        return f"it runs on compute capability 8.x, and {x.device} has {capability}"
    return reason


def _why_not(
    x: Tensor, packed: Packed2to4, multiples: tuple[int, int], *, same_dtype: bool = True
) -> str | None:
    if x.device.type != "cuda" or torch.version.hip is not None:
        return f"it runs on an NVIDIA GPU, and the tensor is on {x.device}"
    if same_dtype and (packed.dtype not in HALVES or x.dtype != packed.dtype):
        return f"it takes x and values of one dtype, bf16 or fp16, got {x.dtype}, {packed.dtype}"
    if any(size % multiple for size, multiple in zip(packed.shape, multiples, strict=True)):
        return f"it takes [R, C] in multiples of {list(multiples)}, got {list(packed.shape)}"
    return None


def cusparselt(x: Tensor, packed: Packed2to4, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` by cuSPARSELt; its packing of the weight is made at the first call."""
    compressed = _compress(packed)
    flat = x.reshape(-1, x.shape[-1])
    tokens = flat.shape[0]
    flat = pad(flat, (0, 0, 0, -tokens % TOKENS)).contiguous()
    added = None if bias is None or packed.scale is not None else bias.to(x.dtype)
    y = torch._cslt_sparse_mm(compressed, flat.t(), bias=added, transpose_result=True)
    return _finish(y[:tokens], x, packed, None if added is not None else bias)


def cusparselt_fp8(
    values: Tensor, x_scale: Tensor, packed: Packed2to4, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """``x W^T + bias`` [T, R] in ``dtype`` by cuSPARSELt, of x as fp8 [T, C] and scales [T]."""
    tokens = len(values)
    padded = pad(values.view(torch.uint8), (0, 0, 0, -tokens % FP8_TOKENS)).view(values.dtype)
    y = torch._cslt_sparse_mm(_compress(packed), padded.T, out_dtype=torch.float32).T[:tokens]
    if packed.scale is not None:
        y = y * packed.scale
    y = y * x_scale[:, None]
    return (y if bias is None else y + bias.float()).to(dtype)


def _compress(packed: Packed2to4) -> Tensor:
    compressed = _compressed.get(packed)
    if compressed is None:
        compressed = _compressed[packed] = torch._cslt_compress(unpack_2to4(packed).contiguous())
    return compressed


def cutlass(x: Tensor, packed: Packed2to4, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` by torch's CUTLASS kernel, which reads ``packed`` as it is."""
    flat = x.reshape(-1, x.shape[-1])
    tokens = flat.shape[0]
    flat = pad(flat, (0, 0, 0, -tokens % TOKENS)).contiguous()
    parts = packed.values.contiguous(), packed.metadata.contiguous()
    y = torch._sparse_semi_structured_mm(*parts, flat.t())
    return _finish(y.t()[:tokens], x, packed, bias)


def _finish(y: Tensor, x: Tensor, packed: Packed2to4, bias: Tensor | None) -> Tensor:
    """Scale, then bias, and the shape of y [..., R]."""
    if packed.scale is not None or bias is not None:
        y = y.float()
        if packed.scale is not None:
            y = y * packed.scale
        if bias is not None:
            y = y + bias.float()
    return y.to(x.dtype).reshape(*x.shape[:-1], packed.rows)
