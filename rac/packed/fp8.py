"""FP8 with one scale a row: weights by output channel, activations by token."""

import torch
from torch import Tensor

from rac_kernels import Packed2to4, linear_2to4, unpack_2to4

LARGEST = 448.0  # of e4m3
TOKENS = 16  # cuSPARSELt multiplies with a multiple of so many columns


def quantize_rows(x: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Round each row of `x` [..., C] to e4m3 with the scale that maps its largest to 448.

    Returns:
        fp8_e4m3 [..., C] and the scales, float32 [...] with values of `dtype`; x is nearly their
        product. The scale of a row of zeros is 1.
    """
    x = x.float()
    scale = (x.abs().amax(-1) / LARGEST).to(dtype).float()
    scale = torch.where(scale > 0, scale, 1.0)
    return (x / scale[..., None]).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale


def linear_2to4_fp8(
    x: Tensor, packed: Packed2to4, bias: Tensor | None, compressed: Tensor | None = None
) -> Tensor:
    """`x W^T + bias` with W in fp8 and packed, x rounded to fp8 token by token.

    Args:
        x: bf16, fp16 or fp32 [..., C].
        packed: W [R, C] in fp8_e4m3 with its scale.
        bias: [R] or None.
        compressed: W as `compress` gives it; then cuSPARSELt multiplies.

    Returns:
        [..., R] in the dtype of `x`. Products of fp8 values are summed in float32.
    """
    quantized, scale = quantize_rows(x)
    if compressed is None:
        y = linear_2to4(quantized.float(), packed)
    else:
        y = _multiply_compressed(quantized, compressed) * packed.scale
    y = y * scale[..., None]
    if bias is not None:
        y = y + bias.float()
    return y.to(x.dtype)


def compress(packed: Packed2to4) -> Tensor | None:
    """W in cuSPARSELt's layout, or None where that cannot multiply fp8 (a CPU, an older GPU)."""
    values = packed.values
    if not values.is_cuda or not torch.backends.cusparselt.is_available():
        return None
    rows, columns = packed.shape
    fits = rows % 32 == 0 and columns % 32 == 0
    if not fits or torch.cuda.get_device_capability(values.device) < (9, 0):
        return None
    return torch._cslt_compress(unpack_2to4(packed))


def _multiply_compressed(x: Tensor, compressed: Tensor) -> Tensor:
    """`x W^T` float32 [..., R] of fp8 x [..., C]."""
    rows = x.reshape(-1, x.shape[-1])
    count = rows.shape[0]
    padded = x.new_zeros(-(-count // TOKENS) * TOKENS, rows.shape[1], dtype=torch.uint8)
    padded[:count] = rows.view(torch.uint8)
    columns = padded.view(torch.float8_e4m3fn).T
    y = torch._cslt_sparse_mm(compressed, columns, out_dtype=torch.float32)  # [R, tokens]
    return y.T[:count].reshape(*x.shape[:-1], -1)
