"""Flushing a staging ring: rows enter H once, halves take turns, errors change nothing."""

import contextlib

import pytest
import torch
from capturing import activity, buffer_for, every_impl, random, staged
from numeric import hessian64, sum_bound

from rac_kernels import CaptureBuffer, PackedTriangle, capture_, flush_


@every_impl
def test_halves_take_turns(impl):
    x = random(5, 3, dtype=torch.float32, impl=impl)
    buffer, hessian = buffer_for(x, 5), torch.zeros(3, 3, device=x.device)
    for half, part in enumerate([x, -x[:4], 2 * x]):
        assert int(buffer.state[1]) == buffer.half == half % 2
        capture_(buffer, part, impl=impl)
        assert torch.equal(staged(buffer), part)
        assert flush_(buffer, hessian) == len(part)
        assert buffer.state.tolist() == [0, 1 - half % 2, 0, 0] and buffer.reserved == 0
    assert torch.equal(buffer.rows[0], 2 * x) and torch.equal(buffer.rows[1, :4], -x[:4])
    rows = torch.cat([x, -x[:4], 2 * x]).cpu()
    error = (hessian.cpu() - hessian64(rows)).abs().tril()
    assert bool((error <= sum_bound(rows)).all())


def test_packed_and_full_hessians_agree():
    x = random(50, 140, dtype=torch.float32, impl="reference")
    full, packed = torch.zeros(140, 140), PackedTriangle.zeros(140)
    for hessian in (full, packed):
        buffer = buffer_for(x, 50)
        capture_(buffer, x)
        flush_(buffer, hessian)
    assert torch.equal(packed.unpack().tril(), full.tril())


def test_empty_flush_adds_nothing():
    hessian = torch.ones(3, 3)
    assert flush_(CaptureBuffer(2, 3, dtype=torch.float32), hessian) == 0
    assert torch.equal(hessian.tril(), torch.ones(3, 3).tril())


def test_counts_of_many_buffers_in_one_tensor():
    states = torch.full((3, 4), 9, dtype=torch.int32)
    buffers = [CaptureBuffer(8, 2, dtype=torch.float32, state=state) for state in states]
    assert not states.any()
    for rows, buffer in enumerate(buffers):
        capture_(buffer, torch.ones(rows, 2))
    counts = states[:, 0].tolist()
    assert counts == [0, 1, 2]
    hessian = torch.zeros(2, 2)
    assert [flush_(b, hessian, count=c) for b, c in zip(buffers, counts, strict=True)] == counts
    assert states.tolist() == [[0, 1, 0, 0]] * 3
    assert torch.equal(hessian.tril(), torch.full((2, 2), 3.0).tril())


def test_a_stale_count_is_refused():
    buffer, hessian = CaptureBuffer(8, 2, dtype=torch.float32), torch.zeros(2, 2)
    capture_(buffer, torch.ones(3, 2))
    with pytest.raises(ValueError, match="flush_: expected count 3, the rows in the buffer, got 2"):
        flush_(buffer, hessian, count=2)
    assert not hessian.any() and flush_(buffer, hessian, count=3) == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_rows_are_refused_by_name(bad):
    x = torch.ones(4, 3)
    x[2, 1] = bad
    buffer, hessian = buffer_for(x, 8), torch.ones(3, 3)
    capture_(buffer, x)
    with pytest.raises(ValueError, match=r"of layers\.3\.mlp\.down_proj, got NaN or Inf in 1 of 4"):
        flush_(buffer, hessian, check_finite="layers.3.mlp.down_proj")
    assert torch.equal(hessian, torch.ones(3, 3)) and int(buffer.state[0]) == 4
    buffer.rows[0, 2] = 1
    assert flush_(buffer, hessian, check_finite="layers.3.mlp.down_proj") == 4


def test_a_hessian_that_does_not_fit_leaves_the_rows_where_they_are():
    buffer = CaptureBuffer(8, 3, dtype=torch.float32)
    capture_(buffer, torch.ones(2, 3))
    for hessian in (torch.zeros(4, 4), torch.zeros(3, 3, dtype=torch.float64)):
        with pytest.raises((ValueError, TypeError), match="hessian_accumulate_"):
            flush_(buffer, hessian)
        assert not hessian.any()
    assert buffer.state.tolist() == [2, 0, 0, 0] and buffer.half == 0


def test_a_restored_buffer_continues():
    x = random(6, 4, dtype=torch.bfloat16, impl="reference")
    first = buffer_for(x, 9)
    flush_(first, torch.zeros(4, 4))
    capture_(first, x, activity(6, "reference"))
    second = buffer_for(x, 9)
    second.load_state_dict(first.state_dict())
    assert second.reserved == 6 and torch.equal(staged(second), staged(first))
    results = [torch.zeros(4, 4), torch.zeros(4, 4)]
    for buffer, hessian in zip((first, second), results, strict=True):
        capture_(buffer, x[:3])
        flush_(buffer, hessian)
    assert torch.equal(*results)
    with pytest.raises(ValueError, match=r"expected rows \[<= 2, 4\], got \[6, 4\]"):
        buffer_for(x, 2).load_state_dict({"rows": x, "reserved": 6})


def test_bad_buffers_are_refused():
    with pytest.raises(TypeError, match="capture_: expected a CaptureBuffer, got Tensor"):
        capture_(torch.ones(2), torch.ones(2))
    with pytest.raises(TypeError, match="flush_: expected a CaptureBuffer, got Tensor"):
        flush_(torch.ones(2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="slots and features >= 1, got 0 and 4"):
        CaptureBuffer(0, 4, dtype=torch.float32)
    with pytest.raises(TypeError, match="expected dtype bf16, fp16 or fp32, got torch.float64"):
        CaptureBuffer(1, 4, dtype=torch.float64)
    for state in (torch.zeros(4), torch.zeros(3, dtype=torch.int32)):
        with pytest.raises(ValueError, match=r"a contiguous int32 state \[4\] on cpu"):
            CaptureBuffer(1, 4, dtype=torch.float32, state=state)


class FakeStream:
    """Logs what a CUDA stream is told."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")

    def record_event(self):
        self.log.append(f"{self.name} records")
        return len([entry for entry in self.log if entry.endswith("records")])

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for flush {event}")


def test_order_of_the_streams(monkeypatch):
    """What a GPU would be told: a half is not filled again before its flush has run."""
    log = []
    main, side = FakeStream("main", log), FakeStream("side", log)

    @contextlib.contextmanager
    def on(stream):
        log.append(f"on {stream.name}")
        yield
        log.append("on main")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    buffer, hessian = CaptureBuffer(2, 3, dtype=torch.float32, stream=side), torch.zeros(3, 3)
    first = ["side waits for main", "on side", "side records", "on main"]
    for flush in range(1, 4):
        capture_(buffer, torch.ones(2, 3))
        log.clear() if flush == 1 else log.append("--")
        flush_(buffer, hessian)
    again = ["--", *first]
    assert log == first + again + ["main waits for flush 1"] + again + ["main waits for flush 2"]
    log.clear()
    buffer.wait()
    assert log == ["main waits for side"]
    assert float(hessian[0, 0]) == 6
