"""The inverse of a small upper triangular block."""

import torch
from torch import Tensor


def triangular_inverse(upper: Tensor) -> Tensor:
    """Float32 inverse of an upper triangular [B, B], found in float64: much rests on it."""
    identity = torch.eye(upper.shape[0], dtype=torch.float64, device=upper.device)
    return torch.linalg.solve_triangular(upper.double(), identity, upper=True).float()
