"""Independent truths for the kernels: float64, the published algorithms, and error bounds."""

import pytest
import torch
from torch import Tensor

from rac_kernels import Pattern, hessian_accumulate_, native_status, symmetrize_

EPS32 = 2.0**-24  # unit roundoff of float32

native = pytest.mark.skipif(
    not native_status()["cpu"].startswith("ok"), reason=native_status()["cpu"]
)
# Runs a test with impl="reference" and, where it is built, impl="native".
implementation = pytest.mark.parametrize(
    "impl", ["reference", pytest.param("native", marks=native)]
)


def activations(tokens: int, features: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Correlated float32 rows [tokens, features] whose column scales span ``10**spread``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, features, generator=generator)
    mix = torch.randn(features, features, generator=generator) / features**0.5
    scale = 10 ** (spread * torch.rand(features, generator=generator) - spread / 2)
    return (x + x @ mix) * scale


def layer(
    rows: int, columns: int, tokens: int | None = None, seed: int = 0, spread: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A weight [R, C] and the full float32 Hessian [C, C] of its input."""
    x = activations(tokens or 2 * columns + 10, columns, seed, spread)
    hessian = symmetrize_(hessian_accumulate_(torch.zeros(columns, columns), x))
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(rows, columns, generator=generator), hessian


def hessian64(x: Tensor, row_weight: Tensor | None = None) -> Tensor:
    """``X^T diag(w) X`` in float64."""
    x = x.double().reshape(-1, x.shape[-1])
    weighted = x if row_weight is None else x * row_weight.double().reshape(-1, 1)
    return weighted.mT @ x


def damped(hessian: Tensor, damping: float) -> Tensor:
    """H + damping * mean(diag H) * I, dead columns given the mean, in float64."""
    hessian = hessian.double().clone()
    diagonal = hessian.diagonal()
    mean = diagonal[diagonal != 0].mean()
    diagonal[diagonal == 0] = mean
    diagonal += damping * mean
    return hessian


def sum_bound(x: Tensor, row_weight: Tensor | None = None) -> Tensor:
    """Componentwise worst case of a float32 sum of T products, gamma_{T+2} |X|^T |w| |X|.

    Higham, Accuracy and Stability of Numerical Algorithms, section 3.5, in any order of summation.
    """
    rows = x.reshape(-1, x.shape[-1]).shape[0]
    size = hessian64(x.abs(), None if row_weight is None else row_weight.abs())
    return (rows + 2) * EPS32 * size


def lowest(scores: Tensor, count: int) -> Tensor:
    """The ``count`` lowest of each row of [K, L], ties by lowest index: a stable sort."""
    order = scores.sort(dim=1, stable=True).indices[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)


def standard_sparsegpt(
    weight: Tensor,
    hessian: Tensor,
    pattern: Pattern,
    *,
    damping: float = 0.01,
    block_size: int = 128,
    compat: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """SparseGPT as published, in float64: Cholesky, inverse, upper Cholesky, column loop.

    ``hessian`` is full [C, C]. Returns the weight, the keep-mask and the sum of squared errors.
    """
    weight = weight.double().clone()
    weight[:, hessian.diagonal() == 0] = 0
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(hessian, damping)))
    root = torch.linalg.cholesky(inverse, upper=True)  # R, H^-1 = R^T R
    keep = torch.ones_like(weight, dtype=torch.bool)
    loss = torch.zeros((), dtype=torch.float64)
    for start in range(0, weight.shape[1], block_size):
        end = min(start + block_size, weight.shape[1])
        scale = root.diagonal()[start:end]
        if pattern.m is None:
            scores = weight[:, start:end] ** 2 / scale**2
            if compat:
                rank = int(scores.numel() * pattern.sparsity)
                pruned = scores <= scores.flatten().sort().values[rank]
            else:
                count = round(scores.numel() * pattern.sparsity)
                pruned = lowest(scores.reshape(1, -1), count).view_as(scores)
            keep[:, start:end] = ~pruned
        errors = torch.zeros_like(weight[:, start:end])
        for j in range(start, end):
            if pattern.m is not None and j % pattern.m == 0:
                group = slice(j, j + pattern.m)
                scores = weight[:, group] ** 2 / root.diagonal()[group] ** 2
                keep[:, group] = ~lowest(scores, pattern.n)
            error = weight[:, j] * ~keep[:, j] / root[j, j]
            weight[:, j:end] -= error[:, None] * root[j, j:end]
            weight[:, j] *= keep[:, j]
            errors[:, j - start] = error
        weight[:, end:] -= errors @ root[start:end, end:]
        loss += errors.square().sum()
    return weight, keep, loss
