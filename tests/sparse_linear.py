"""What the tests of sparse linears share: weights, inputs, a float64 truth and its bound."""

import pytest
import torch
from numeric import EPS32, native
from torch import Tensor

from rac_kernels import Pattern, select_mask

implementation = pytest.mark.parametrize(
    "impl", ["reference", pytest.param("native", marks=native)]
)
TOKENS = [1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 33, 64, 65, 130, 257]


def sparse_weight(rows, columns, dtype=torch.bfloat16, pattern="2:4", seed=0) -> Tensor:
    """A pruned weight [R, C]; a row of zeros where there are three or more."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    if pattern == "2:4":
        keep = select_mask(weight.abs(), Pattern.parse(pattern), impl="reference")
    else:
        keep = torch.rand(rows, columns, generator=generator) >= float(pattern)
    weight = weight * keep
    weight[2:3] = 0
    return (
        (weight * 40).round().clamp(-127, 127).to(dtype)
        if dtype == torch.int8
        else weight.to(dtype)
    )


def inputs(*shape, dtype=torch.float32, seed=1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype)


def every_half() -> Tensor:
    """The 65536 numbers of fp16."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)


def assert_is_product(y, x, weight, scale=None, bias=None):
    """``y`` is x W^T, scaled and shifted, within a float32 sum's error and one rounding of y.

    gamma_{C+3} |x| |W|^T bounds any order of C products, a scale and a bias (Higham 2002, 3.1);
    half an ulp of y's dtype is added for the last rounding.
    """
    size = x.double().abs() @ weight.double().abs().mT
    truth = x.double() @ weight.double().mT
    if scale is not None:
        size, truth = size * scale.double().abs(), truth * scale.double()
    if bias is not None:
        size, truth = size + bias.double().abs(), truth + bias.double()
    assert y.dtype == x.dtype and y.shape == truth.shape
    bound = (x.shape[-1] + 3) * EPS32 * size
    bound += torch.finfo(y.dtype).eps / 2 * (truth.abs() + bound)
    worst = ((y.double() - truth).abs() - bound).max() if y.numel() else 0
    assert worst <= 1e-30, f"off by {worst} more than float32 sums may be"
