"""Rows rounded to fp8: by the definition, and the same bits from every implementation."""

import pytest
import torch
from capturing import device_of, every_impl, strided
from fp8_truth import E4M3, rounded
from instruction_sets import every_instruction_set
from numeric import native

from rac_kernels import quantize_fp8_rows

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def bits(values, scale):
    return values.view(torch.uint8).tolist(), scale.view(torch.int32).tolist()


def assert_is_the_references(x, impl, scale_dtype=torch.float32):
    """Of rows without NaN bit for bit; scales too, which a CPU's division gives."""
    values, scale = quantize_fp8_rows(x.to(device_of(impl)), scale_dtype=scale_dtype, impl=impl)
    expected = quantize_fp8_rows(x, scale_dtype=scale_dtype, impl="reference")
    assert values.dtype == torch.float8_e4m3fn and scale.dtype == torch.float32
    assert bits(values.cpu(), scale.cpu()) == bits(*expected)


@every_impl
@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_is_to_the_nearest(impl, dtype):
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[1] *= 1e-20 if dtype != torch.float16 else 1e-3
    x[2] = 0
    x[3, :] = 1e30 if dtype != torch.float16 else 6e4
    x = x.to(device_of(impl))
    values, scale = (t.cpu() for t in quantize_fp8_rows(x, impl=impl))
    assert scale.dtype == torch.float32 and scale[2] == 1
    assert torch.equal(values.double() * scale.double()[:, None], rounded(x.cpu()))
    assert values.float().abs().amax(1).tolist() == [448, 448, 0, 448, 448]


@every_impl
def test_ties_and_every_value_of_e4m3(impl):
    """With a largest of 448 the scale is 1: values, the middles between them, and near those."""
    table = torch.tensor(E4M3)
    middles = (table[1:] + table[:-1]) / 2
    tiny = torch.tensor([1e-30, -1e-30, 2.0**-10, 2.0**-10 * (1 + 2**-20), -0.0, 1e-45])
    x = torch.cat([table, middles, middles * (1 + 2**-20), middles * (1 - 2**-20), tiny])
    assert quantize_fp8_rows(x, impl="reference")[1] == 1
    assert_is_the_references(x[None], impl)
    values, _ = quantize_fp8_rows(table.to(device_of(impl)), impl=impl)
    assert torch.equal(values.cpu().float(), table)


@every_impl
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 7), (3, 33), (4, 96), (2, 3, 1100), (2, 17000), (0, 8), (9,)]
)
def test_shapes(impl, dtype, scale_dtype, shape):
    x = (3 * torch.randn(shape, generator=torch.Generator().manual_seed(2))).to(dtype)
    assert_is_the_references(x, impl, scale_dtype)
    if x.ndim == 2 and len(x):
        assert_is_the_references(strided(x), impl, scale_dtype)


@every_impl
@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")  # the interpreter's
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_and_what_is_too_small(impl, scale_dtype):
    x = torch.randn(6, 50)
    x[0, 3], x[1, 4], x[2, 5] = torch.nan, torch.inf, -torch.inf
    x[3] *= 1e-38
    x[4] = torch.linspace(0, 1, 50) * 1e-42  # the scale is a subnormal of few bits
    x[5] = 1e-45
    device = device_of(impl)
    values, scale = quantize_fp8_rows(x.to(device), scale_dtype=scale_dtype, impl=impl)
    expected = quantize_fp8_rows(x, scale_dtype=scale_dtype, impl="reference")
    assert torch.equal(scale.cpu(), expected[1]) and scale[0] == 1 and scale[1].isinf()
    nan = expected[0].float().isnan()
    assert torch.equal(values.cpu().float().isnan(), nan) and nan.sum() == 3
    assert torch.equal(values.cpu().float()[~nan], expected[0].float()[~nan])


@native
@every_instruction_set
def test_every_instruction_set_and_any_bits(instruction_set):
    generator = torch.Generator().manual_seed(3)
    words = torch.randint(-(2**31), 2**31, (40, 99), generator=generator).int()
    floats = words.view(torch.float32)
    halves = torch.arange(2**16).short().view(256, 256)
    for x in (floats[floats.isfinite().all(1)], floats, halves.view(torch.bfloat16)):
        assert_is_the_references(x, "native")


@native
def test_threads_change_nothing():
    x = torch.randn(700, 600)
    one = quantize_fp8_rows(x, impl="native")
    torch.set_num_threads(3)
    try:
        three = quantize_fp8_rows(x, impl="native")
    finally:
        torch.set_num_threads(1)
    assert bits(*one) == bits(*three)


def test_refusals():
    op = "quantize_fp8_rows: "
    with pytest.raises(TypeError, match=op + "expected x in bf16, fp16 or fp32, got torch.float64"):
        quantize_fp8_rows(torch.ones(2, 3).double())
    with pytest.raises(ValueError, match=op + "expected x with a unit last stride"):
        quantize_fp8_rows(torch.ones(4, 6)[:, ::2])
    with pytest.raises(ValueError, match=op + "expected scale_dtype torch.float32 or torch.bfloat"):
        quantize_fp8_rows(torch.ones(2, 3), scale_dtype=torch.float16)
    with pytest.raises(ValueError, match="cannot run: it has no backward"):
        quantize_fp8_rows(torch.ones(2, 3, requires_grad=True), impl="native")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_auto_is_triton_and_is_recorded_in_a_graph():
    x = torch.randn(16, 1536, device="cuda").bfloat16()
    quantize_fp8_rows(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        values, scale = quantize_fp8_rows(x)
    x.copy_(torch.randn(16, 1536, device="cuda").bfloat16())
    graph.replay()
    expected = quantize_fp8_rows(x.cpu(), impl="reference")
    assert bits(values.cpu(), scale.cpu()) == bits(*expected)
