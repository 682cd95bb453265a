"""e4m3 by its definition, in float64."""

import torch
from torch import Tensor

# Every finite value: 4 bits of exponent (bias 7), 3 of mantissa.
E4M3 = sorted(
    {
        sign
        * (mantissa / 8 * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))
        for sign in (1, -1)
        for exponent in range(16)
        for mantissa in range(8)
        if (exponent, mantissa) != (15, 7)
    }
)


def nearest(x: Tensor) -> Tensor:
    """The value of e4m3 next to each element, ties to the even mantissa."""
    table = torch.tensor(E4M3, dtype=torch.float64, device=x.device)
    order = (x.double()[..., None] - table).abs()
    best = order.min(-1)
    second = order.scatter(-1, best.indices[..., None], float("inf")).min(-1)
    tie = best.values == second.values
    even = table[best.indices].abs().to(torch.float8_e4m3fn).view(torch.uint8) % 2 == 0
    index = torch.where(tie & ~even, second.indices, best.indices)
    return table[index]


def rounded(x: Tensor) -> Tensor:
    """Rows of `x` as they come back from fp8; the quotients alone are float32's."""
    scale = x.float().abs().amax(-1, keepdim=True) / 448
    scale = torch.where(scale > 0, scale, 1.0)
    return nearest(x.float() / scale) * scale.double()
