"""Triton's interpreter, corrected for bf16, computes what torch does."""

import pytest
import torch
from triton_interpreter import DEVICE, INTERPRETED, needs_triton

pytestmark = needs_triton
triton = pytest.importorskip("triton", reason="triton is not installed")
tl = triton.language


@triton.jit
def bf16_product_kernel(a_ptr, b_ptr, product_ptr, rounded_ptr, SIZE: tl.constexpr):
    offs = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    product = tl.dot(tl.load(a_ptr + offs), tl.trans(tl.load(b_ptr + offs)))  # [SIZE, SIZE]
    tl.store(product_ptr + offs, product)
    tl.store(rounded_ptr + offs, product.to(tl.bfloat16))


def test_bf16_products_and_conversions():
    generator = torch.Generator().manual_seed(0)
    # Integers up to 16: products and sums are exact, and many sums fall between two bf16.
    a, b = torch.randint(-16, 17, (2, 32, 32), generator=generator).to(DEVICE, torch.bfloat16)
    product = torch.empty(32, 32, device=DEVICE)
    rounded = torch.empty(32, 32, device=DEVICE, dtype=torch.bfloat16)
    bf16_product_kernel[(1,)](a, b, product, rounded, SIZE=32)
    expected = a.double() @ b.double().mT
    assert torch.equal(product.double(), expected)
    assert torch.equal(rounded, expected.to(torch.bfloat16))
    assert not torch.equal(rounded.double(), expected)


@triton.jit
def bf16_sum_kernel(a_ptr):
    tl.store(a_ptr, tl.load(a_ptr) + tl.load(a_ptr))


@pytest.mark.skipif(not INTERPRETED, reason="a GPU adds bf16")
def test_bf16_arithmetic_is_refused_rather_than_wrong():
    with pytest.raises(Exception, match="widen to float32"):
        bf16_sum_kernel[(1,)](torch.ones(1, dtype=torch.bfloat16))
