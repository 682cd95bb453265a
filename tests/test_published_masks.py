"""compat beside the eager algorithm as the paper describes it, in torch's own float32 routines."""

import pytest
import torch
from numeric import activations, implementation

from rac_kernels import Pattern, factor_hessian, hessian_accumulate_, sparsegpt, symmetrize_


def published(weight, hessian, sparsity, damping=0.01, block_size=128):
    """Pruned weight and keep-mask: algorithm 1 of SparseGPT with a threshold for each block.

    The inverse's upper Cholesky factor, columns from left to right, each one's error pushed to
    those right of it; the threshold stands at int(numel * sparsity) of the sorted scores, and what
    equals it goes too.
    """
    weight, hessian = weight.clone(), hessian.clone()
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    root = torch.linalg.cholesky(inverse, upper=True)
    keep = torch.ones_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block_size):
        block = slice(start, min(start + block_size, weight.shape[1]))
        scores = weight[:, block] ** 2 / root.diagonal()[block] ** 2
        threshold = scores.flatten().sort().values[int(scores.numel() * sparsity)]
        keep[:, block] = ~(scores <= threshold)
        errors = torch.zeros_like(scores)
        for j in range(block.start, block.stop):
            kept = torch.where(keep[:, j], weight[:, j], 0)
            errors[:, j - start] = (weight[:, j] - kept) / root[j, j]
            weight[:, j : block.stop] -= errors[:, j - start, None] * root[j, j : block.stop]
            weight[:, j] = kept
        weight[:, block.stop :] -= errors @ root[block, block.stop :]
    return weight, keep


def assert_is_published(weight, hessian, sparsity, impl):
    pruned, keep, _ = sparsegpt(
        weight, factor_hessian(hessian, impl=impl), Pattern(sparsity), compat=True, impl=impl
    )
    expected, expected_keep = published(weight, hessian, sparsity)
    assert torch.equal(keep, expected_keep)
    torch.testing.assert_close(pruned, expected, rtol=1e-3, atol=1e-4)


@implementation
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.75])
def test_inputs_of_very_uneven_scale(impl, sparsity):
    """A diagonal H over eight decades: nothing is pushed, and the scores alone decide."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(24, 200, generator=generator)
    hessian = (10 ** (8 * torch.rand(200, generator=generator) - 4)).diag()
    assert_is_published(weight, hessian, sparsity, impl)


@implementation
@pytest.mark.parametrize("sparsity", [0.3, 0.5])
def test_weights_that_nearly_tie(impl, sparsity):
    """Steps of 1 / 4096 around 1, with signs: scores a hair apart, each in its order."""
    generator = torch.Generator().manual_seed(3)
    steps = torch.randperm(16 * 96, generator=generator).view(16, 96)
    signs = torch.randint(0, 2, (16, 96), generator=generator) * 2 - 1
    assert_is_published((1 + steps / 4096) * signs, 4 * torch.eye(96), sparsity, impl)


@implementation
def test_correlated_inputs(impl):
    x = activations(600, 160, seed=4)
    hessian = symmetrize_(hessian_accumulate_(torch.zeros(160, 160), x))
    weight = torch.randn(16, 160, generator=torch.Generator().manual_seed(5))
    assert_is_published(weight, hessian, 0.5, impl)
