"""The compiled Triton rank-k update at the sizes that it is for; needs a GPU."""

import pytest
import torch
from triton_interpreter import sized

from rac_kernels import PackedTriangle, hessian_accumulate_

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
STREAMED = [(8192, 1536), (20000, 5120), (100_000, 256)] if sized(1, 0) else [(90, 200)]
UNIT = 2.0**-23  # tensor cores round towards zero


def random_rows(tokens, features, dtype=torch.bfloat16):
    generator = torch.Generator("cuda").manual_seed(tokens + features)
    x = torch.randn(tokens, features, generator=generator, device="cuda", dtype=dtype)
    return x.add_(0.5)  # a mean, so that sums grow


def assert_close(hessian, x, rows=slice(None), columns=slice(None)):
    """Entries (rows, columns) on and below the diagonal, against float64."""
    i = torch.arange(x.shape[1], device="cuda")
    left, right = x[:, rows].double(), x[:, columns].double()
    below = i[rows][:, None] >= i[columns][None, :]
    error = (hessian[rows, columns].double() - left.mT @ right).abs() * below
    bound = (x.shape[0] + 2) * UNIT * (left.abs().mT @ right.abs())
    worst = float((error / bound).nan_to_num(0).max())
    # Typical errors are far below the worst case; a lost tile or segment is as large as the sum.
    assert bool((error <= bound).all()) and worst < max(0.1, 8 / (1 + x.shape[0]) ** 0.5), worst


def configurations():
    if not torch.cuda.is_available():
        return []
    from rac_kernels._triton import tuning

    capability = tuning.capability(torch.device("cuda"))
    found = [(kind, c) for (cc, kind), cs in tuning.HESSIAN.items() if cc == capability for c in cs]
    return [pytest.param(kind, c, id=f"{kind}-{n}") for n, (kind, c) in enumerate(found)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("kind", "config"), configurations())
def test_every_configuration(kind, config, packed):
    from rac_kernels._triton import hessian_accumulate

    dtype = torch.float32 if kind == "float32" else torch.bfloat16
    for tokens, features in [(4096, 3584), (40000, 1536), (100, 640)]:
        x = random_rows(tokens, features, dtype)
        hessian = torch.zeros(features, features, device="cuda")
        target = PackedTriangle.zeros(features, "cuda") if packed else hessian
        hessian_accumulate.hessian_accumulate_(target, x, None, config=config)
        assert_close(target.unpack() if packed else hessian, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("features", [1, 127, 128, 1000, 1001, 1536, 5120])
@pytest.mark.parametrize("tokens", [1, 63, 2049])
def test_shapes(tokens, features, dtype):
    x = random_rows(tokens, features, dtype)
    hessian = torch.zeros(features, features, device="cuda")
    hessian_accumulate_(hessian, x)
    assert_close(hessian, x)
    packed = hessian_accumulate_(PackedTriangle.zeros(features, "cuda"), x)
    assert torch.equal(packed.unpack(), hessian.tril())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_strides_and_rows_that_are_not_finite(dtype):
    x = random_rows(3000, 2048, dtype)[::2, 256:1280]
    weight = torch.rand(1500, device="cuda") - 0.3
    weight[7::10] = 0
    finite = x.clone()
    x[7::10] = float("nan")
    hessian = hessian_accumulate_(torch.zeros(1024, 1024, device="cuda"), x, row_weight=weight)
    finite[weight == 0] = 0
    left, right = finite.double() * weight[:, None].double(), finite.double()
    error = (hessian.double() - left.mT @ right).abs().tril()
    assert bool((error <= 1502 * UNIT * (left.abs().mT @ right.abs())).all())


def test_offsets_beyond_32_bits():
    x = random_rows(140_000, 16384)  # 2.3e9 elements
    hessian = hessian_accumulate_(torch.zeros(16384, 16384, device="cuda"), x)
    last = slice(-64, None)
    assert_close(hessian, x, last, slice(0, 64))
    assert_close(hessian, x, last, last)
    del x, hessian
    x = random_rows(64, 46464)  # H has 2.2e9
    hessian = hessian_accumulate_(torch.zeros(46464, 46464, device="cuda"), x)
    assert_close(hessian, x, last, slice(0, 4096))
    assert_close(hessian, x, last, last)


@pytest.mark.parametrize(("tokens", "features"), STREAMED)
def test_the_same_bits_again_even_with_another_stream_at_work(tokens, features):
    x = random_rows(tokens, features)
    first = hessian_accumulate_(torch.zeros(features, features, device="cuda"), x)
    streams = [torch.cuda.Stream() for _ in range(2)]
    results = []
    torch.cuda.synchronize()
    for n in range(6):
        with torch.cuda.stream(streams[n % 2]):
            results.append(hessian_accumulate_(torch.zeros_like(first), x))
    torch.cuda.synchronize()
    assert all(torch.equal(result.tril(), first.tril()) for result in results)


def test_inside_a_cuda_graph_with_rows_counted_on_the_device():
    from rac_kernels._triton import hessian_accumulate

    tokens, features = sized(4096, 70), sized(1536, 150)
    x = random_rows(tokens, features)
    rows = torch.tensor(tokens, device="cuda")
    hessian = torch.zeros(features, features, device="cuda")
    hessian_accumulate.hessian_accumulate_(hessian, x, None, rows=rows)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        hessian_accumulate.hessian_accumulate_(hessian, x, None, rows=rows)
    for count in (tokens, tokens // 4, 0):
        hessian.zero_()
        rows.fill_(count)
        graph.replay()
        assert_close(hessian, x[:count])
