"""The CUDA linears on a GPU: every number of tokens, the shapes of real models, graphs, streams."""

import dataclasses

import pytest
import torch
from emulated_linear import assert_linear, inputs, scattered_weight, sparse_weight
from triton_interpreter import sized

from rac_kernels import native_status
from rac_kernels._native.linear_cuda import linear_2to4_cuda, linear_bitmap_cuda, why_not_cuda
from rac_kernels.ops.packing import pack_2to4, pack_bitmap

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.skipif(native_status()["cuda"] != "ok", reason=native_status()["cuda"]),
]
HALVES = [torch.bfloat16, torch.float16]
ODD = [(1, 32), (31, 64), (33, 160), (100, 3584), (1000, 992), (4097, 32)]
# R x C of gate or up and of down: R1-Distill-Qwen 1.5B, 7B, 14B, 32B, Llama 70B.
MODELS = [(8960, 1536), (18944, 3584), (13824, 5120), (27648, 5120), (28672, 8192)]
FFN, HIDDEN = sized(8960, 128), sized(1536, 64)
MODELS += [(columns, rows) for rows, columns in MODELS]


KINDS = {
    "2to4": (sparse_weight, pack_2to4, linear_2to4_cuda),
    "bitmap": (scattered_weight, pack_bitmap, linear_bitmap_cuda),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def on_gpu(kind, rows, columns, dtype, **how):
    """A weight, packed, and its linear."""
    make, pack, linear = KINDS[kind]
    weight = make(rows, columns, dtype, device="cuda", **how)
    return weight, pack(weight), linear


def check(tokens, weight, packed, linear, bias=None):
    x = inputs(tokens, weight.shape[1], weight.dtype, device="cuda")
    assert why_not_cuda(x, packed) is None
    y = linear(x, packed, bias)
    assert y.shape == (tokens, weight.shape[0]) and y.dtype == x.dtype
    assert_linear(y, x, weight, getattr(packed, "scale", None), bias)
    return x, y


@every_kind
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("rows", "columns"), [(1536, 1536), (300, 608), (3584, 18944)])
def test_every_number_of_tokens(kind, rows, columns, dtype):
    weight, packed, linear = on_gpu(kind, rows, columns, dtype)
    for tokens in range(1, 65):
        check(tokens, weight, packed, linear)


@every_kind
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("rows", "columns"), ODD + MODELS)
def test_shapes(kind, rows, columns, dtype):
    weight, packed, linear = on_gpu(kind, rows, columns, dtype)
    for tokens in (1, 5, 8, 16, 31, 64):
        check(tokens, weight, packed, linear)


@every_kind
@pytest.mark.parametrize("dtype", HALVES)
def test_sums_are_exact_where_float32_is(kind, dtype):
    """A value or a position in the wrong place cannot hide below a bound."""
    weight, packed, linear = on_gpu(kind, 777, 2080, dtype, integers=True)
    for tokens in (1, 13, 64):
        x = inputs(tokens, 2080, dtype, integers=True, device="cuda")
        truth = (x.double() @ weight.double().mT).to(dtype)
        assert torch.equal(linear(x, packed, None), truth)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bias_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scale_and_bias(dtype, bias_dtype):
    weight, packed, linear = on_gpu("2to4", 1000, 1536, dtype)
    scaled = dataclasses.replace(packed, scale=torch.rand(1000, device="cuda") + 0.5)
    bias = torch.randn(1000, device="cuda").to(bias_dtype)
    check(7, weight, packed, linear, bias)
    check(7, weight, scaled, linear, bias)
    check(7, *on_gpu("bitmap", 1000, 1536, dtype), bias)


@every_kind
@pytest.mark.parametrize("dtype", HALVES)
def test_leading_dimensions_strides_and_addresses(kind, dtype):
    weight, packed, linear = on_gpu(kind, 520, 1024, dtype)
    wide = inputs(12, 1100, dtype, device="cuda")
    for x in (wide[:, :1024], wide[:, 8:1032], wide[:, 3:1027], wide[::2, :1024]):
        assert_linear(linear(x, packed, None), x, weight)
    x = wide[:, :1024].reshape(3, 4, 1024)
    assert torch.equal(
        linear(x, packed, None),
        linear(x.reshape(12, 1024), packed, None).view(3, 4, 520),
    )


@every_kind
@pytest.mark.parametrize("tokens", [1, 32, 64])
def test_the_same_bits_again_with_other_streams_at_work(kind, tokens):
    weight, packed, linear = on_gpu(kind, sized(3584, 96), sized(18944, 320), torch.bfloat16)
    x, first = check(tokens, weight, packed, linear)
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    results = []
    for n in range(sized(30, 4)):
        with torch.cuda.stream(streams[n % 3]):
            results.append(linear(x, packed, None))
    torch.cuda.synchronize()
    assert all(torch.equal(result, first) for result in results)


@every_kind
def test_inside_cuda_graphs_before_during_and_after_eager_calls(kind):
    """Two layers of one graph, two graphs, replayed in turns with eager calls between."""
    up, packed_up, linear = on_gpu(kind, FFN, HIDDEN, torch.bfloat16)
    down, packed_down, _ = on_gpu(kind, HIDDEN, FFN, torch.bfloat16)
    x = inputs(24, HIDDEN, torch.bfloat16, device="cuda")

    def mlp(x):
        hidden = linear(x, packed_up, None)
        return hidden, linear(hidden, packed_down, None)

    mlp(x)  # reorders the weights
    graphs, outputs = [], []
    for _ in range(2):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs.append(mlp(x))
        graphs.append(graph)
    for seed in range(sized(20, 2)):
        x.copy_(inputs(24 + seed, HIDDEN, torch.bfloat16, device="cuda")[:24])
        eager = mlp(x)
        for graph, output in zip(graphs, outputs, strict=True):
            graph.replay()
            assert all(torch.equal(a, b) for a, b in zip(eager, output, strict=True))
    assert_linear(eager[0], x, up)
    assert_linear(eager[1], eager[0], down)


@every_kind
def test_a_first_use_inside_a_capture_is_refused(kind):
    _, packed, linear = on_gpu(kind, 64, 64, torch.bfloat16)
    x = inputs(2, 64, torch.bfloat16, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with (
        pytest.raises(RuntimeError, match="used before a CUDA graph captures it"),
        torch.cuda.graph(graph),
    ):
        linear(x, packed, None)


def test_why_not_on_a_gpu():
    _, packed, _ = on_gpu("2to4", 64, 64, torch.bfloat16)
    x = inputs(65, 64, torch.bfloat16, device="cuda")
    assert why_not_cuda(x, packed) == "it takes at most 64 tokens, got 65"
    assert "both in fp16" in why_not_cuda(x[:2].half(), packed)


def test_offsets_beyond_32_bits():
    """2.3e9 bytes of weight; the last rows are right."""
    rows, columns = 65536, 32768
    strip, packed_strip, linear = on_gpu("2to4", 4096, columns, torch.bfloat16)
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
    y = linear(x, tall, None)
    assert_linear(y[:, -4096:].contiguous(), x, strip)
    assert torch.equal(y.view(3, -1, 4096)[:, 0], y.view(3, -1, 4096)[:, -1])
