"""The Triton rank-k update: its walk of the triangle, its sums, and where they are split."""

import dataclasses

import pytest
import torch
from numeric import activations, hessian64, sum_bound
from triton_interpreter import DEVICE, needs_triton

from rac_kernels import PackedTriangle, hessian_accumulate_

pytestmark = [needs_triton, *([pytest.mark.gpu] if DEVICE == "cuda" else [])]
triton = pytest.importorskip("triton", reason="triton is not installed")

from rac_kernels._triton import hessian_accumulate, tuning  # noqa: E402
from rac_kernels._triton.triangle import tile_origin, triangle_index  # noqa: E402
from rac_kernels._triton.tuning import HessianConfig  # noqa: E402

tl = triton.language
# Small tiles and segments, so that few features and tokens have many of them.
TALL = HessianConfig(64, 32, 32, num_warps=4, num_stages=2, group=2, segment=64)
FLAT = HessianConfig(32, 64, 32, num_warps=4, num_stages=2, group=1, segment=32)
SQUARE = HessianConfig(32, 32, 32, num_warps=4, num_stages=2, group=2, segment=64)
CONFIGS = {"tall": TALL, "flat": FLAT, "square": SQUARE}


@pytest.fixture(params=["whole", "split"])
def splitting(request, monkeypatch):
    """Run a test with no tile split, and with the last rounds of tiles in 3 parts."""
    if request.param == "whole":
        monkeypatch.setattr(tuning, "plan_splits", lambda tiles, tokens, programs: (0, 1))
    else:
        monkeypatch.setattr(tuning, "plan_splits", lambda tiles, tokens, programs: (tiles - 1, 3))


def accumulate(x, *, config, row_weight=None, rows=None, packed=False):
    """The launcher on zeros, the result full and on the CPU."""
    features = x.shape[1]
    hessian = torch.zeros(features, features, device=DEVICE)
    target = PackedTriangle.zeros(features, DEVICE) if packed else hessian
    hessian_accumulate.hessian_accumulate_(target, x, row_weight, rows=rows, config=config)
    return (target.unpack() if packed else hessian).cpu()


def assert_lower_within(hessian, x, row_weight=None):
    bound = 2 * sum_bound(x, row_weight)  # tensor cores round towards zero
    error = (hessian.double() - hessian64(x, row_weight)).abs().tril()
    assert bool((error <= bound).all()), f"worst error/bound {(error / bound).max()}"


@triton.jit
def origins_kernel(out_ptr, tiles, features, BI: tl.constexpr, BJ: tl.constexpr, G: tl.constexpr):
    for tile in range(tiles):
        i0, j0 = tile_origin(tl.cast(tile, tl.int32), features, BI, BJ, G)
        tl.store(out_ptr + 2 * tile, i0)
        tl.store(out_ptr + 2 * tile + 1, j0)


@pytest.mark.parametrize("features", [1, 64, 65, 300, 500])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_tile_of_the_triangle_is_walked_once(name, features):
    config = CONFIGS[name]
    tiles = config.count_tiles(features)
    out = torch.empty(tiles, 2, dtype=torch.int32, device=DEVICE)
    origins_kernel[(1,)](out, tiles, features, config.block_i, config.block_j, config.group)
    walked = [tuple(row) for row in out.tolist()]
    side = max(config.block_i, config.block_j)
    end = -(-features // side) * side
    needed = {
        (i, j)
        for i in range(0, end, config.block_i)
        for j in range(0, end, config.block_j)
        if j // side <= i // side
    }
    assert len(walked) == len(set(walked)) == tiles and set(walked) == needed


@triton.jit
def triangle_kernel(t_ptr, i_ptr, j_ptr, SIZE: tl.constexpr):
    offs = tl.arange(0, SIZE)
    i, j = triangle_index(tl.load(t_ptr + offs))
    tl.store(i_ptr + offs, i)
    tl.store(j_ptr + offs, j)


def test_triangle_index_is_exact():
    rows = torch.cat([torch.arange(85), 2 ** torch.arange(7, 20), 2**20 - torch.arange(200)])
    starts = rows * (rows + 1) // 2
    t = torch.cat([starts, starts + rows // 2, starts + rows])[:768]
    t = torch.cat([t, torch.arange(256)]).to(DEVICE)
    i, j = torch.empty(2, 1024, dtype=torch.int64, device=DEVICE)
    triangle_kernel[(1,)](t, i, j, SIZE=1024)
    assert torch.equal(i * (i + 1) // 2 + j, t) and bool(((j >= 0) & (j <= i)).all())


@pytest.mark.parametrize(
    ("tiles", "tokens"), [(420, 4096), (210, 131072), (78, 4096), (1, 1 << 20)]
)
def test_splitting_shortens_the_longest_program(tiles, tokens):
    split, parts = tuning.plan_splits(tiles, tokens, 132)
    whole = tiles - split
    assert whole % 132 == 0 and split * parts <= tuning.MAX_PARTS * 132
    longest = whole / 132 + -(-split * parts // 132) / parts
    assert longest < 1.1 * max(tiles / 132, 1 / tuning.MAX_SPLITS) + 0.05 < -(-tiles // 132)


def test_nothing_is_split_when_tiles_fill_the_rounds_or_tokens_are_few():
    assert tuning.plan_splits(1056, 131072, 132) == (0, 1)
    assert tuning.plan_splits(420, 64, 132) == (0, 1)


@pytest.mark.parametrize("name,packed", [("tall", True), ("flat", False), ("square", True)])
def test_many_tiles_and_segments_equal_float64(name, packed, splitting):
    x = activations(140, 130).half().to(DEVICE)
    assert_lower_within(accumulate(x, config=CONFIGS[name], packed=packed), x.cpu())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "features"), [(1, 1), (5, 3), (65, 129), (20, 300)])
def test_defaults_equal_float64(tokens, features, dtype, packed):
    x = activations(tokens, features).to(DEVICE, dtype)
    hessian = torch.full((features, features), 2.0, device=DEVICE)
    target = PackedTriangle.pack(hessian) if packed else hessian
    assert hessian_accumulate_(target, x, impl="triton") is target
    hessian = (target.unpack() if packed else hessian).cpu()
    assert_lower_within(hessian, torch.cat([x.cpu(), torch.ones(2, features)]))


def test_strided_rows():
    x = activations(40, 200).half().to(DEVICE)[::2, 5:100]
    assert_lower_within(accumulate(x, config=SQUARE), x.cpu())
    x = activations(40, 64).half().to(DEVICE).view(4, 10, 64)[:, ::2]
    hessian = hessian_accumulate_(torch.zeros(64, 64, device=DEVICE), x, impl="triton")
    assert_lower_within(hessian.cpu(), x.cpu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_row_weight(dtype, splitting):
    x = activations(150, 70).to(DEVICE, dtype)
    weight = torch.rand(150, generator=torch.Generator().manual_seed(1)) - 0.2
    weight[10:20] = 0
    expected = x.cpu().clone()
    x[10:20] = float("nan")
    hessian = accumulate(x, config=SQUARE, row_weight=weight.to(DEVICE))
    assert_lower_within(hessian, expected, weight)
    hessian = accumulate(x, config=SQUARE, row_weight=(weight != 0).to(DEVICE))
    assert_lower_within(hessian, expected, (weight != 0).float())


@pytest.mark.parametrize("rows", [0, 1, 37, 64, 150])
def test_rows_counted_on_the_device(rows, splitting):
    x = activations(150, 70).half().to(DEVICE)
    expected = x[:rows].cpu()
    x[rows:] = float("inf")
    cursor = torch.tensor(rows, device=DEVICE)
    assert_lower_within(accumulate(x, config=FLAT, rows=cursor), expected)


def test_the_copy_engine_sums_the_same():
    if DEVICE == "cuda" and torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("no copy engine before sm_90")
    x = activations(100, 144).half().to(DEVICE)
    assert_lower_within(accumulate(x, config=dataclasses.replace(FLAT, tma=True)), x.cpu())


def test_what_is_outside_h_is_not_touched(splitting):
    memory = torch.full((100, 90), 3.0, device=DEVICE)
    x = activations(20, 70).half().to(DEVICE)
    hessian = memory[10:80, 8:78]
    hessian_accumulate.hessian_accumulate_(hessian, x, None, config=FLAT)
    hessian.fill_(3)
    assert bool((memory == 3).all())


def test_the_same_bits_again(splitting):
    x = activations(140, 130).half().to(DEVICE)
    first = accumulate(x, config=FLAT)
    assert torch.equal(accumulate(x, config=FLAT), first)


def test_refusals(monkeypatch):
    x = torch.zeros(3, 8, device=DEVICE)
    hessian = torch.zeros(8, 16, device=DEVICE)[:, ::2]
    with pytest.raises(
        ValueError, match="impl='triton' cannot run: it needs a hessian with a unit"
    ):
        hessian_accumulate_(hessian, x, impl="triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="it runs on a GPU, and the tensor is on the CPU"):
        hessian_accumulate_(torch.zeros(8, 8), torch.zeros(3, 8), impl="triton")
