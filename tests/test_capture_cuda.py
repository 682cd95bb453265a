"""Captures as nodes of a CUDA graph, flushes on a side stream."""

import pytest
import torch
from numeric import hessian64
from triton_interpreter import sized

from rac_kernels import CaptureBuffer, capture_, flush_, rmsnorm_capture, swiglu_capture

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
EPS = 1e-6


class Step:
    """One decode step of three captured values, recorded as a CUDA graph."""

    def __init__(self, batch: int, features: int, slots: int, dtype: torch.dtype) -> None:
        like = {"device": "cuda", "dtype": dtype}
        self.x, self.up = torch.zeros(2, batch, features, **like)
        self.active = torch.zeros(batch, dtype=torch.bool, device="cuda")
        self.weight = torch.ones(features, **like)
        states = torch.empty(3, 4, dtype=torch.int32, device="cuda")
        self.states = states
        self.buffers = [CaptureBuffer(slots, features, state=s, **like) for s in states]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.run()  # compiles; nothing is active
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        before = [buffer.reserved for buffer in self.buffers]
        with torch.cuda.graph(self.graph):
            self.values = self.run()
        assert [buffer.reserved for buffer in self.buffers] == before  # whoever replays counts

    def run(self) -> list[torch.Tensor]:
        plain, normed, gated = self.buffers
        capture_(plain, self.x, self.active)
        return [
            self.x,
            rmsnorm_capture(self.x, self.weight, EPS, buffer=normed, active=self.active),
            swiglu_capture(self.x, self.up, buffer=gated, active=self.active),
        ]

    def replay(self, seed: int) -> list[torch.Tensor]:
        """Random rows, each active or not; the active rows of the three values."""
        generator = torch.Generator("cuda").manual_seed(seed)
        for x in (self.x, self.up):
            x.copy_(torch.randn(x.shape, generator=generator, device="cuda"))
        self.active.copy_(torch.rand(len(self.x), generator=generator, device="cuda") < 0.7)
        for buffer in self.buffers:
            buffer.reserve(len(self.x))
        self.graph.replay()
        return [value[self.active].clone() for value in self.values]

    def flush(self, hessians: list[torch.Tensor]) -> list[int]:
        counts = self.states[:, 0].tolist()
        parts = zip(self.buffers, hessians, counts, strict=True)
        return [flush_(buffer, hessian, count=count) for buffer, hessian, count in parts]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("batch", "features"),
    [(1, 64), (5, sized(1536, 40)), (sized(300, 9), 1000), (sized(64, 3), sized(18944, 130))],
)
def test_replayed_captures_hold_every_active_row_in_order(dtype, batch, features):
    step = Step(batch, features, 4 * batch, dtype)
    for buffer in step.buffers:
        buffer.reserved = 0  # of the run that compiled
    truth = [torch.cat(rows) for rows in zip(*map(step.replay, range(4)), strict=True)]
    for buffer, rows in zip(step.buffers, truth, strict=True):
        assert buffer.state.tolist() == [len(rows), 0, 0, 0]
        assert torch.equal(buffer.rows[0, : len(rows)], rows)
    with pytest.raises(ValueError, match="reserve: expected at most 0 rows before a flush_"):
        step.replay(4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_flushes_on_the_side_stream_lose_and_double_nothing(dtype):
    """Many steps, a flush every third, never waited for: the same bits as in series."""
    batch, features, steps = sized(32, 4), sized(2048, 70), sized(200, 9)
    step = Step(batch, features, 3 * batch, dtype)
    for buffer in step.buffers:
        buffer.reserved = 0
    hessians = torch.zeros(3, features, features, device="cuda")
    serial = torch.zeros_like(hessians)
    truth = torch.zeros_like(hessians, dtype=torch.float64)
    flushed, staged, total = [0, 0, 0], [], 0
    for seed in range(steps):
        if step.buffers[0].reserved + batch > step.buffers[0].slots:
            flushed = [a + b for a, b in zip(flushed, step.flush(hessians), strict=True)]
            _add(serial, truth, staged)
            staged = []
        staged.append(step.replay(seed))
        total += len(staged[-1][0])
    flushed = [a + b for a, b in zip(flushed, step.flush(hessians), strict=True)]
    _add(serial, truth, staged)
    for buffer in step.buffers:
        buffer.wait()
    assert flushed == [total] * 3
    for ours, one_by_one, exact in zip(hessians, serial, truth, strict=True):
        torch.testing.assert_close(ours.tril(), one_by_one.tril(), rtol=1e-5, atol=1e-3)
        error = (ours.double() - exact).tril().norm() / exact.tril().norm()
        assert error < 1e-5


def _add(serial, truth, staged):
    """What the flushes should have added, on the current stream."""
    for index, rows in enumerate(zip(*staged, strict=True)):
        rows = torch.cat(rows)
        buffer = CaptureBuffer(max(len(rows), 1), rows.shape[1], dtype=rows.dtype, device="cuda")
        capture_(buffer, rows)
        flush_(buffer, serial[index])
        buffer.wait()
        truth[index] += hessian64(rows)


def test_counts_are_exact_over_many_graph_replays():
    """Unit vectors: H's diagonal is the number of active rows of each kind, exactly."""
    batch, features, slots = sized(16, 3), sized(128, 20), sized(160, 7)
    x = torch.zeros(batch, features, device="cuda")
    active = torch.zeros(batch, dtype=torch.bool, device="cuda")
    buffer = CaptureBuffer(slots, features, dtype=torch.float32, device="cuda")
    capture_(buffer, x, active)
    buffer.reserved = 0
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        capture_(buffer, x, active)
    hessian = torch.zeros(features, features, device="cuda")
    truth = torch.zeros(features, dtype=torch.long, device="cuda")
    for seed in range(sized(500, 20)):
        if buffer.reserved + batch > slots:
            flush_(buffer, hessian)
        generator = torch.Generator("cuda").manual_seed(seed)
        kind = torch.randint(features, (batch,), generator=generator, device="cuda")
        active.copy_(torch.rand(batch, generator=generator, device="cuda") < 0.5)
        x.copy_(torch.nn.functional.one_hot(kind, features))
        x[~active] = float("nan")
        buffer.reserve(batch)
        graph.replay()
        truth += torch.bincount(kind[active], minlength=features)
    flush_(buffer, hessian)
    buffer.wait()
    assert torch.equal(hessian.tril(), truth.float().diag())


def test_a_buffer_on_another_device_is_refused():
    buffer = CaptureBuffer(8, 4, dtype=torch.float32)
    with pytest.raises(ValueError, match="all tensors on one device"):
        capture_(buffer, torch.ones(2, 4, device="cuda"))
    with pytest.raises(ValueError, match="all tensors on one device"):
        mask = torch.ones(2, dtype=torch.bool, device="cuda")
        capture_(buffer, torch.ones(2, 4), mask)


def test_native_on_a_gpu_says_why_not():
    buffer = CaptureBuffer(8, 4, dtype=torch.float32, device="cuda")
    with pytest.raises(ValueError, match="it runs on the CPU, and the tensor is on cuda"):
        capture_(buffer, torch.ones(2, 4, device="cuda"), impl="native")
