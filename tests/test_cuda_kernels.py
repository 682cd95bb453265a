"""The CUDA linears on a GPU: every number of tokens, the shapes of real models, graphs, streams."""

import dataclasses

import pytest
import torch
from emulated_linear import assert_linear, inputs, sparse_weight

from rac_kernels import native_status
from rac_kernels._native.linear_cuda import linear_2to4_cuda, why_not_cuda
from rac_kernels.ops.packing import pack_2to4

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.skipif(native_status()["cuda"] != "ok", reason=native_status()["cuda"]),
]
HALVES = [torch.bfloat16, torch.float16]
ODD = [(1, 32), (31, 64), (33, 160), (100, 3584), (1000, 992), (4097, 32)]
# R x C of gate or up and of down: R1-Distill-Qwen 1.5B, 7B, 14B, 32B, Llama 70B.
MODELS = [(8960, 1536), (18944, 3584), (13824, 5120), (27648, 5120), (28672, 8192)]
MODELS += [(columns, rows) for rows, columns in MODELS]


def on_gpu(rows, columns, dtype, **how):
    weight = sparse_weight(rows, columns, dtype, device="cuda", **how)
    return weight, pack_2to4(weight)


def check(tokens, weight, packed, bias=None):
    x = inputs(tokens, weight.shape[1], weight.dtype, device="cuda")
    assert why_not_cuda(x, packed) is None
    y = linear_2to4_cuda(x, packed, bias)
    assert y.shape == (tokens, weight.shape[0]) and y.dtype == x.dtype
    assert_linear(y, x, weight, packed.scale, bias)
    return x, y


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("rows", "columns"), [(1536, 1536), (300, 608), (3584, 18944)])
def test_every_number_of_tokens(rows, columns, dtype):
    weight, packed = on_gpu(rows, columns, dtype)
    for tokens in range(1, 65):
        check(tokens, weight, packed)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("rows", "columns"), ODD + MODELS)
def test_shapes(rows, columns, dtype):
    weight, packed = on_gpu(rows, columns, dtype)
    for tokens in (1, 5, 8, 16, 31, 64):
        check(tokens, weight, packed)


@pytest.mark.parametrize("dtype", HALVES)
def test_sums_are_exact_where_float32_is(dtype):
    """A value or a position in the wrong place cannot hide below a bound."""
    weight, packed = on_gpu(777, 2080, dtype, integers=True)
    for tokens in (1, 13, 64):
        x = inputs(tokens, 2080, dtype, integers=True, device="cuda")
        truth = (x.double() @ weight.double().mT).to(dtype)
        assert torch.equal(linear_2to4_cuda(x, packed, None), truth)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bias_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scale_and_bias(dtype, bias_dtype):
    weight, packed = on_gpu(1000, 1536, dtype)
    scaled = dataclasses.replace(packed, scale=torch.rand(1000, device="cuda") + 0.5)
    bias = torch.randn(1000, device="cuda").to(bias_dtype)
    check(7, weight, packed, bias)
    check(7, weight, scaled, bias)


@pytest.mark.parametrize("dtype", HALVES)
def test_leading_dimensions_strides_and_addresses(dtype):
    weight, packed = on_gpu(520, 1024, dtype)
    wide = inputs(12, 1100, dtype, device="cuda")
    for x in (wide[:, :1024], wide[:, 8:1032], wide[:, 3:1027], wide[::2, :1024]):
        assert_linear(linear_2to4_cuda(x, packed, None), x, weight)
    x = wide[:, :1024].reshape(3, 4, 1024)
    assert torch.equal(
        linear_2to4_cuda(x, packed, None),
        linear_2to4_cuda(x.reshape(12, 1024), packed, None).view(3, 4, 520),
    )


@pytest.mark.parametrize("tokens", [1, 32, 64])
def test_the_same_bits_again_with_other_streams_at_work(tokens):
    weight, packed = on_gpu(3584, 18944, torch.bfloat16)
    x, first = check(tokens, weight, packed)
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    results = []
    for n in range(30):
        with torch.cuda.stream(streams[n % 3]):
            results.append(linear_2to4_cuda(x, packed, None))
    torch.cuda.synchronize()
    assert all(torch.equal(result, first) for result in results)


def test_inside_cuda_graphs_before_during_and_after_eager_calls():
    """Two layers of one graph, two graphs, replayed in turns with eager calls between."""
    up, packed_up = on_gpu(8960, 1536, torch.bfloat16)
    down, packed_down = on_gpu(1536, 8960, torch.bfloat16)
    x = inputs(24, 1536, torch.bfloat16, device="cuda")

    def mlp(x):
        hidden = linear_2to4_cuda(x, packed_up, None)
        return hidden, linear_2to4_cuda(hidden, packed_down, None)

    mlp(x)  # reorders the weights
    graphs, outputs = [], []
    for _ in range(2):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs.append(mlp(x))
        graphs.append(graph)
    for seed in range(20):
        x.copy_(inputs(24 + seed, 1536, torch.bfloat16, device="cuda")[:24])
        eager = mlp(x)
        for graph, output in zip(graphs, outputs, strict=True):
            graph.replay()
            assert all(torch.equal(a, b) for a, b in zip(eager, output, strict=True))
    assert_linear(eager[0], x, up)
    assert_linear(eager[1], eager[0], down)


def test_a_first_use_inside_a_capture_is_refused():
    _, packed = on_gpu(64, 64, torch.bfloat16)
    x = inputs(2, 64, torch.bfloat16, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with (
        pytest.raises(RuntimeError, match="used before a CUDA graph captures it"),
        torch.cuda.graph(graph),
    ):
        linear_2to4_cuda(x, packed, None)


def test_why_not_on_a_gpu():
    _, packed = on_gpu(64, 64, torch.bfloat16)
    x = inputs(65, 64, torch.bfloat16, device="cuda")
    assert why_not_cuda(x, packed) == "it takes at most 64 tokens, got 65"
    assert "both in fp16" in why_not_cuda(x[:2].half(), packed)


def test_offsets_beyond_32_bits():
    """2.3e9 bytes of weight; the last rows are right."""
    rows, columns = 65536, 32768
    strip, packed_strip = on_gpu(4096, columns, torch.bfloat16)
    tall = dataclasses.replace(
        packed_strip,
        values=packed_strip.values.repeat(rows // 4096, 1),
        # Each 32 columns of metadata stand together for all rows.
        metadata=packed_strip.metadata.view(torch.int32)
        .view(columns // 32, 4096)
        .repeat(1, rows // 4096)
        .view(torch.int16)
        .view(rows, columns // 16),
        rows=rows,
    )
    x = inputs(3, columns, torch.bfloat16, device="cuda")
    y = linear_2to4_cuda(x, tall, None)
    assert_linear(y[:, -4096:].contiguous(), x, strip)
    assert torch.equal(y.view(3, -1, 4096)[:, 0], y.view(3, -1, 4096)[:, -1])
