"""What stands between a tensor and a CUDA linear: arguments, counters, graphs. No GPU is needed."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from emulated_linear import H100, assert_linear, inputs, library, plan, run, sparse_weight

from rac_kernels import _native, native_status, quantize_fp8_rows
from rac_kernels._native import linear_cuda
from rac_kernels.ops.packing import pack_2to4, pack_bitmap

built = pytest.mark.skipif(native_status()["cuda"] != "ok", reason=native_status()["cuda"])
emulation = pytest.mark.skipif(isinstance(library(), str), reason=str(library()))
STREAM = 7


@pytest.fixture
def gpu(monkeypatch):
    """The module and torch.cuda of a machine whose GPU is the emulation: `launches`, `capture`."""
    state = SimpleNamespace(launches=[], capture=0)

    def linear_plan(*, tokens, rows, columns, chunk, slot, device):
        fields = plan(tokens, rows, columns, device, chunk=chunk, slot=slot)
        tiles, warps, _, blocks, _, _ = fields
        return SimpleNamespace(
            fields=fields, blocks=blocks, partials=2 * blocks * warps * 32 * tiles * 8
        )

    module = SimpleNamespace(
        capture_of=lambda stream: state.capture,
        device_limits=lambda number: H100,
        linear_plan=linear_plan,
        linear=lambda **arguments: state.launches.append(arguments),
    )
    monkeypatch.setattr(linear_cuda, "load", lambda name: module)
    monkeypatch.setattr(linear_cuda, "_device", lambda number: H100)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=STREAM))
    monkeypatch.setattr(linear_cuda, "_counters", {})
    return state


@emulation
@pytest.mark.parametrize("pack", [pack_2to4, pack_bitmap])
def test_a_launch_says_what_the_kernel_needs(gpu, pack):
    weight = sparse_weight(200, 1056, torch.bfloat16)
    packed, x = pack(weight), inputs(12, 1056, torch.bfloat16).view(3, 4, 1056)
    bias = torch.randn(200, dtype=torch.float16)
    linear = _native.linear_2to4_cuda if pack is pack_2to4 else _native.linear_bitmap_cuda
    y = linear(x, packed, bias)
    assert y.shape == (3, 4, 200) and y.dtype == torch.bfloat16
    [said] = gpu.launches
    reordered = linear_cuda._reordered[packed]
    assert said["weight"] == reordered.weight.data_ptr() and said["x"] == x.data_ptr()
    assert said["y"] == y.data_ptr() and said["stride"] == 1056 and said["scale"] == 0
    assert (said["starts"] == 0) == (pack is pack_2to4)
    assert said["bias"] != bias.data_ptr() and said["bias_is_float"]  # widened: not the dtype of x
    assert (said["tokens"], said["rows"], said["columns"]) == (12, 200, 1056)
    rows = x.reshape(12, 1056)
    result = run(rows, packed, reordered, said["plan"].fields, bias=bias.float())
    assert_linear(result, rows, weight, bias=bias.float())


@emulation
def test_a_launch_of_fp8_says_what_the_kernel_needs(gpu):
    values, scale = quantize_fp8_rows(sparse_weight(200, 1088, torch.float32))
    packed = pack_2to4(values, scale=scale)
    x, x_scale = quantize_fp8_rows(inputs(12, 1088, torch.bfloat16))
    y = _native.linear_2to4_fp8_cuda(x, x_scale, packed, None, torch.bfloat16)
    assert y.shape == (12, 200) and y.dtype == torch.bfloat16
    [said] = gpu.launches
    assert said["weight"] == linear_cuda._reordered[packed].weight.data_ptr()
    assert (said["starts"], said["scale"]) == (0, scale.data_ptr())
    assert (said["x_scale"], said["y"]) == (x_scale.data_ptr(), y.data_ptr())
    assert (said["stride"], said["columns"], said["dtype"]) == (1088, 1088, 1)
    assert said["plan"].fields[5] == linear_cuda._reordered[packed].slot == 160


@emulation
def test_a_weight_is_reordered_once_and_forgotten_with_its_packed_self(gpu):
    packed, x = pack_2to4(sparse_weight(40, 64, torch.bfloat16)), inputs(2, 64, torch.bfloat16)
    before = len(linear_cuda._reordered)
    for _ in range(3):
        _native.linear_2to4_cuda(x, packed, None)
    assert len({said["weight"] for said in gpu.launches}) == 1
    assert len(linear_cuda._reordered) == before + 1
    del packed
    assert len(linear_cuda._reordered) == before


@emulation
def test_x_that_16_byte_copies_cannot_read_is_copied(gpu):
    packed = pack_2to4(sparse_weight(40, 64, torch.bfloat16))
    wide = inputs(4, 84, torch.bfloat16)
    for x in (wide[:, :64], wide[:, 1:65], inputs(64, 4, torch.bfloat16).mT):
        _native.linear_2to4_cuda(x, packed, None)
    assert [said["stride"] for said in gpu.launches] == [64, 64, 64]
    even = inputs(4, 96, torch.bfloat16)
    _native.linear_2to4_cuda(even[:, 8:72], packed, None)
    assert (gpu.launches[-1]["stride"], gpu.launches[-1]["x"]) == (96, even.data_ptr() + 16)


@emulation
def test_counters_belong_to_one_stream_and_one_capture(gpu):
    packed, x = pack_2to4(sparse_weight(40, 64, torch.bfloat16)), inputs(2, 64, torch.bfloat16)
    seen, kept = [], []  # kept: addresses are not given out again
    for gpu.capture in (0, 0, 1, 1, 2, 0):
        _native.linear_2to4_cuda(x, packed, None)
        seen.append(gpu.launches[-1]["arrived"])
        kept.append(linear_cuda._counters[None, STREAM][1])
    assert seen[0] == seen[1] and seen[2] == seen[3]
    assert len(set(seen)) == 4
    assert all(bool((counters == 0).all()) for counters in kept)


@emulation
def test_a_first_use_in_a_capture_is_refused(gpu):
    packed, x = pack_2to4(sparse_weight(40, 64, torch.bfloat16)), inputs(2, 64, torch.bfloat16)
    gpu.capture = 3
    with pytest.raises(RuntimeError, match=r"first use of W \[40, 64\] in the capture"):
        _native.linear_2to4_cuda(x, packed, None)
    assert not gpu.launches


@built
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: its own tests run")
@pytest.mark.parametrize(("starts", "x_scale"), [(0, 0), (4096, 0), (0, 4096)])
def test_the_module_takes_these_arguments_and_says_that_there_is_no_driver(starts, x_scale):
    module = _native.load(_native.CUDA)
    sizes = {"tokens": 12, "rows": 200, "columns": 1056}
    shares = module.linear_plan(**sizes, chunk=128, slot=288, device=H100)
    names = ("weight", "x", "y", "scale", "x_scale", "bias", "partials", "arrived")
    addresses = dict.fromkeys(names, 4096) | {"x_scale": x_scale}
    arguments = addresses | sizes | {"starts": starts, "stride": 1056, "bias_is_float": True}
    arguments |= {"plan": shares, "dtype": 1, "stream": 0}
    with pytest.raises(RuntimeError, match="linear: CUDA error"):
        module.linear(**arguments)
    with pytest.raises(ValueError, match="a size, stride or address does not fit the plan"):
        module.linear(**arguments | {"tokens": 17})
    with pytest.raises(ValueError, match="W is too large, or shared memory too small"):
        module.linear_plan(**sizes, chunk=128, slot=288, device=(132, 1024, 1024))
