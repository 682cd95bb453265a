"""What factor_hessian hands on to sparsegpt."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class HessianFactor:
    """The factor of a damped Hessian.

    Attributes:
        upper: U, float32 [C, C], upper triangular, ``H + damping = U U^T``. Its inverse is the
            R of SparseGPT's ``H^-1 = R^T R``.
        damping: what was added to the diagonal, as a share of the mean diagonal.
        attempts: how many factorisations were tried; 1 means that the given damping sufficed.
        dead: bool [C], inputs that were never non-zero (``H_jj == 0``).
        floor: what every diagonal entry was raised to as the last resort, 0.0 if it was not needed.
    """

    upper: Tensor
    damping: float
    attempts: int
    dead: Tensor
    floor: float = 0.0
