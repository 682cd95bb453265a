"""H += X^T diag(w) X, lower triangle (method: Hessian)."""

from torch import Tensor

from rac_kernels.triangle import PackedTriangle

# Rows of x held in float32 at once: bounds the copy made of bf16/fp16 input.
CHUNK_T = 4096
# A square on the diagonal this wide is computed whole: T*D*(D + LEAF_D)/2 multiply-adds, not T*D*D.
LEAF_D = 128


def hessian_accumulate_(
    hessian: Tensor | PackedTriangle, x: Tensor, row_weight: Tensor | None
) -> Tensor | PackedTriangle:
    """Add ``sum_t w_t x_t x_t^T`` to the lower triangle of ``hessian``.

    Args:
        hessian: float32 [D, D] or packed, updated in place. Entries above the diagonal are
            unspecified.
        x: [T, D] bf16, fp16 or fp32, unit last stride.
        row_weight: [T] or None. A row of weight 0 adds nothing, even if it is not finite.
    """
    for t in range(0, x.shape[0], CHUNK_T):
        rows = x[t : t + CHUNK_T]  # [CHUNK_T, D]
        if row_weight is None:
            rows = weighted = rows.float()
        else:
            weight = row_weight[t : t + CHUNK_T].float()
            rows, weight = rows[weight != 0].float(), weight[weight != 0]
            weighted = rows * weight[:, None]
        if isinstance(hessian, PackedTriangle):
            for start, end, block in hessian.block_rows():
                block.addmm_(weighted[:, start:end].mT, rows[:, :end])
        else:
            _add_triangle_(hessian, weighted, rows)
    return hessian


def _add_triangle_(hessian: Tensor, weighted: Tensor, rows: Tensor) -> None:
    """Halve the triangle: two smaller ones and a square, the fastest shape to multiply."""
    features = hessian.shape[0]
    if features <= LEAF_D:
        hessian.addmm_(weighted.mT, rows)
        return
    half = -(-features // (2 * LEAF_D)) * LEAF_D
    low, high = slice(0, half), slice(half, features)
    for part in (low, high):
        _add_triangle_(hessian[part, part], weighted[:, part], rows[:, part])
    hessian[high, low].addmm_(weighted[:, high].mT, rows[:, low])
