"""The CUDA packing kernels without a GPU: lane by lane on threads of the host, and compiled."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from packing_truth import HALVES, assert_is_torchs, bits, every_dtype, halves, sparse_weight

from rac_kernels import Packed2to4, mask_and_pack_2to4, pack_2to4, unpack_2to4

TESTS = Path(__file__).resolve().parent
NONE = 2**63 - 1
VALUE = {torch.bfloat16: 0, torch.float16: 1, torch.int8: 2, torch.float8_e4m3fn: 3}
# One row and part of a warp; off a tile and two warps across; more tasks than warps.
SHAPES = [(1, 64), (33, 128), (17, 1088), (70, 576)]


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    library = tmp_path_factory.mktemp("lanes") / "packing.so"
    flags = ["-O1", "-std=c++20", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-pthread"]
    source = TESTS / "lanes" / "packing.cpp"
    subprocess.run([compiler, "-shared", *flags, source, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.pack_2to4.restype = loaded.unpack_2to4.restype = ctypes.c_int64
    return loaded


def address(tensor):
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def long(*numbers):
    return [ctypes.c_int64(number) for number in numbers]


def pack(kernels, weight, scale=None, prune=False, blocks=2):
    """What the kernel makes, and the first group that it refuses."""
    rows, columns = weight.shape
    like = pack_2to4(torch.zeros(rows, columns).to(weight.dtype), impl="reference")
    values, metadata = torch.empty_like(like.values), torch.empty_like(like.metadata)
    found = kernels.pack_2to4(
        address(weight),
        *long(weight.stride(0) * weight.element_size(), rows, columns, len(values)),
        address(values),
        address(metadata),
        address(scale),
        VALUE[weight.dtype],
        int(prune),
        blocks,
    )
    return Packed2to4(values, metadata, rows), found


def unpack(kernels, packed, blocks=1):
    dense = torch.empty(packed.shape, dtype=packed.dtype)
    found = kernels.unpack_2to4(
        address(packed.values),
        address(packed.metadata),
        *long(*packed.shape, len(packed.values)),
        address(dense),
        VALUE[packed.dtype],
        blocks,
    )
    return dense, found


@every_dtype
def test_lanes_pack_as_torch_and_unpack(kernels, dtype):
    for rows, columns in SHAPES + ([(5, 32), (40, 96)] if dtype in HALVES else []):
        weight = sparse_weight(rows, columns, dtype)
        packed, found = pack(kernels, weight)
        assert found == NONE
        assert_is_torchs(packed, weight)
        dense, found = unpack(kernels, packed)
        assert found == NONE
        assert torch.equal(bits(dense), bits(unpack_2to4(packed, impl="reference")))
    strided = sparse_weight(66, 256, dtype)[::2, 64:192]
    assert_is_torchs(pack(kernels, strided)[0], strided)


@every_dtype
def test_lanes_find_the_first_that_is_refused(kernels, dtype):
    weight = sparse_weight(40, 192, dtype)
    packed = pack(kernels, weight)[0]
    flat = packed.metadata.view(-1)
    for row, column in ((39, 188), (20, 128), (20, 60), (3, 64)):
        weight[row, column : column + 3] = torch.ones(3).to(dtype)
        assert pack(kernels, weight)[1] == row * 192 + column
    # Words 0 of the tiles of rows 32 (48 for bytes: padding) and 0.
    for row in (32, 0):
        flat[2 * row] = flat[2 * row] & ~0xF
        assert unpack(kernels, packed)[1] == row


@halves
@pytest.mark.parametrize("scaled", [False, True])
def test_lanes_keep_the_two_highest(kernels, dtype, scaled):
    for rows, columns in SHAPES + [(5, 32), (40, 96)]:
        generator = torch.Generator().manual_seed(columns)
        weight = torch.randn(rows, columns, generator=generator)
        weight[::2] = (weight[::2] * 2).round() / 2
        weight.view(-1)[::17] = float("inf")
        weight = weight.to(dtype)
        weight.view(torch.int16).view(-1)[3::11] = 3  # subnormal
        scale = torch.rand(columns, generator=generator) + 0.1 if scaled else None
        packed, found = pack(kernels, weight, scale, prune=True)
        diagonal = None if scale is None else scale.double().square()  # its root is the scale
        expected = mask_and_pack_2to4(weight, diagonal, impl="reference")
        assert found == NONE
        assert torch.equal(bits(packed.values), bits(expected.values))
        assert torch.equal(packed.metadata, expected.metadata)
        weight[rows // 2, columns - 3] = float("nan")
        assert pack(kernels, weight, scale, prune=True)[1] == rows // 2 * columns + columns - 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
@pytest.mark.parametrize("source", ["pack_2to4.cu", "unpack_2to4.cu", "select_mask.cu"])
def test_kernels_compile_without_spills(source, tmp_path):
    codes = [f"-gencode=arch={c.replace('sm', 'compute')},code={c}" for c in ("sm_80", "sm_90a")]
    command = ["nvcc", "-O3", "-std=c++17", "-Xptxas", "-v", *codes, "-c", "-o", tmp_path / "o"]
    command.append(TESTS.parent / "csrc" / "cuda" / source)
    log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", log)
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", log)]
    assert len(frames) == len(registers) >= 4, log
    assert set(frames) == {("0", "0", "0")}, log
    assert max(registers) <= 80, log  # 6 blocks of 128 threads on a multiprocessor
