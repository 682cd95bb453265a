"""H += X^T diag(w) X, lower triangle (method: Hessian)."""

from torch import Tensor

# Rows of x held in float32 at once: bounds the copy made of bf16/fp16 input.
CHUNK_T = 4096
# Width of a column block: narrow blocks waste less above the diagonal (multiply-adds are
# T*D*(D + width)/2 instead of T*D*D), wide ones multiply faster.
MIN_BLOCK_D, MAX_BLOCK_D = 128, 256


def hessian_accumulate_(hessian: Tensor, x: Tensor, row_weight: Tensor | None) -> Tensor:
    """Add ``sum_t w_t x_t x_t^T`` to the lower triangle of ``hessian``.

    Args:
        hessian: float32 [D, D], updated in place. Entries above the diagonal are unspecified.
        x: [T, D] bf16, fp16 or fp32, unit last stride.
        row_weight: [T] or None. A row of weight 0 adds nothing, even if it is not finite.
    """
    features = x.shape[1]
    width = min(max(features // 8, MIN_BLOCK_D), MAX_BLOCK_D)
    for t in range(0, x.shape[0], CHUNK_T):
        rows = x[t : t + CHUNK_T]  # [CHUNK_T, D]
        if row_weight is None:
            rows = weighted = rows.float()
        else:
            weight = row_weight[t : t + CHUNK_T].float()
            rows, weight = rows[weight != 0].float(), weight[weight != 0]
            weighted = rows * weight[:, None]
        for d in range(0, features, width):
            end = min(d + width, features)
            # H[d:end, :end] += X[:, d:end]^T X[:, :end]: the block row left of and on the diagonal.
            hessian[d:end, :end].addmm_(weighted[:, d:end].mT, rows[:, :end])
    return hessian
