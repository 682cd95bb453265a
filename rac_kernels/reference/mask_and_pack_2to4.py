"""2:4 packing of what is left of a dense weight: Wanda's or the magnitude's two highest of four."""

from torch import Tensor

from rac_kernels.packed import Packed2to4
from rac_kernels.pattern import Pattern
from rac_kernels.reference.pack_2to4 import pack_2to4
from rac_kernels.reference.select_mask import select_mask
from rac_kernels.reference.wanda import wanda_scores


def scores_of(weight: Tensor, hessian_diagonal: Tensor | None) -> Tensor:
    """``|w_ij|``, or ``|w_ij| * sqrt(H_jj)``, in float32 [R, C]."""
    if hessian_diagonal is None:
        return weight.float().abs()
    return wanda_scores(weight, hessian_diagonal)


def mask_and_pack_2to4(weight: Tensor, scores: Tensor) -> Packed2to4:
    """Pack the two of every four neighbours in ``weight`` [R, C] with the highest ``scores``."""
    keep = select_mask(scores, Pattern.parse("2:4"), "row", 128)
    return pack_2to4(weight.masked_fill(~keep, 0))


def first_nan_group(scores: Tensor) -> tuple[int, int] | None:
    """Row and first column of the first four neighbours with a NaN."""
    if scores.numel() == 0 or not bool(scores.aminmax().max.isnan()):  # NaN wins
        return None
    row, column = scores.isnan().nonzero()[0].tolist()
    return row, column // 4 * 4
