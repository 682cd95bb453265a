"""Wanda's score (arXiv 2306.11695, eq. 1)."""

from torch import Tensor


def wanda_scores(weight: Tensor, hessian_diagonal: Tensor) -> Tensor:
    """``|w_ij| * sqrt(H_jj)`` in float32 [R, C]; the token count only scales it."""
    return weight.float().abs() * hessian_diagonal.float().sqrt()
