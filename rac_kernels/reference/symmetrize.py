"""Copy the lower triangle of H onto the upper one."""

from torch import Tensor

BLOCK_D = 128  # 64 KB squares: a transposed copy misses the caches in wider ones


def symmetrize_(hessian: Tensor) -> Tensor:
    """Make ``hessian`` [D, D] symmetric from its lower triangle, in place, block by block."""
    for d in range(0, hessian.shape[0], BLOCK_D):
        end = min(d + BLOCK_D, hessian.shape[0])
        hessian[:d, d:end] = hessian[d:end, :d].mT
        diagonal = hessian[d:end, d:end]
        diagonal.copy_(diagonal.tril() + diagonal.tril(-1).mT)
    return hessian
