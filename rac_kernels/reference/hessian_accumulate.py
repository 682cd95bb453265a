"""H += X^T diag(w) X, lower triangle (method: Hessian)."""

from torch import Tensor

# Rows of x held in float32 at once: bounds the copy made of bf16/fp16 input.
CHUNK_T = 4096
# Width of a column block. Multiply-adds are T*D*(D + BLOCK_D)/2 instead of T*D*D.
BLOCK_D = 256


def hessian_accumulate_(hessian: Tensor, x: Tensor, row_weight: Tensor | None) -> Tensor:
    """Add ``sum_t w_t x_t x_t^T`` to the lower triangle of ``hessian``.

    Args:
        hessian: float32 [D, D], updated in place. Entries above the diagonal are unspecified.
        x: [T, D] bf16, fp16 or fp32, unit last stride.
        row_weight: [T] or None. A row of weight 0 adds nothing, even if it is not finite.
    """
    if row_weight is not None:
        used = row_weight != 0
        x, row_weight = x[used], row_weight[used].float()
    for t in range(0, x.shape[0], CHUNK_T):
        rows = x[t : t + CHUNK_T].float()  # [CHUNK_T, D]
        weighted = rows if row_weight is None else rows * row_weight[t : t + CHUNK_T, None]
        for d in range(0, x.shape[1], BLOCK_D):
            end = min(d + BLOCK_D, x.shape[1])
            # H[d:end, :end] += X[:, d:end]^T X[:, :end]: the block row left of and on the diagonal.
            hessian[d:end, :end].addmm_(weighted[:, d:end].mT, rows[:, :end])
    return hessian
