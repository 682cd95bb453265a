"""silu(gate) * up, the input of a gated MLP's down projection, captured."""

import torch
from torch import Tensor

from rac_kernels.capture import Ring
from rac_kernels.reference.capture import capture_


def swiglu_capture(gate: Tensor, up: Tensor, ring: Ring | None) -> Tensor:
    """``y = round(silu(gate)) * up`` for gate and up [..., D]."""
    y = torch.nn.functional.silu(gate) * up
    if ring is not None:
        capture_(y, ring)
    return y
