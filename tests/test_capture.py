"""The staging ring: every active row exactly once, in order, or an error."""

import importlib.util

import pytest
import torch
from capturing import (
    DTYPES,
    activity,
    buffer_for,
    device_of,
    every_impl,
    random,
    staged,
    strided,
)

from rac_kernels import CaptureBuffer, capture_, flush_, rmsnorm_capture

# One row, one column, one off a block of 1024 columns, more rows than two blocks of the mask.
SHAPES = [(1, 1), (1, 40), (5, 1025), (18, 3)]


@pytest.fixture(autouse=True)
def small_mask_blocks(monkeypatch):
    if importlib.util.find_spec("triton") is not None:
        from rac_kernels._triton import capture

        monkeypatch.setattr(capture, "BLOCK_B", 8)


@every_impl
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "features"), SHAPES)
def test_active_rows_are_appended_in_order(impl, dtype, batch, features):
    buffer, expected = None, []
    for step in range(3):
        x = random(batch, features, dtype=dtype, impl=impl, seed=step)
        active = activity(batch, impl, seed=step)
        buffer = buffer or buffer_for(x, 3 * batch)
        capture_(buffer, x, active, impl=impl)
        expected.append(x[active])
    assert torch.equal(staged(buffer), torch.cat(expected))
    assert buffer.state.tolist() == [len(torch.cat(expected)), 0, 0, 0]
    assert buffer.reserved == 3 * batch


@every_impl
def test_all_rows_without_a_mask_and_none_with_an_empty_one(impl):
    x = random(4, 6, dtype=torch.float32, impl=impl)
    buffer = buffer_for(x, 8)
    capture_(buffer, x, impl=impl)
    capture_(buffer, x, torch.zeros(4, dtype=torch.bool, device=x.device), impl=impl)
    assert torch.equal(staged(buffer), x)


@every_impl
def test_no_rows(impl):
    x = random(0, 6, dtype=torch.float32, impl=impl)
    buffer = buffer_for(x, 8)
    capture_(buffer, x, impl=impl)
    assert buffer.state.tolist() == [0, 0, 0, 0]


@every_impl
def test_leading_dimensions_and_strides(impl):
    x = random(6, 10, dtype=torch.float32, impl=impl)
    buffer = buffer_for(x, 40)
    active = activity(6, impl)
    capture_(buffer, strided(x), active, impl=impl)
    capture_(buffer, x.view(6, 1, 10), active, impl=impl)
    capture_(buffer, x.view(2, 3, 10), active.view(2, 3), impl=impl)
    capture_(buffer, x, activity(12, impl)[::2], impl=impl)
    capture_(buffer, x[0], impl=impl)
    expected = [x[active]] * 3 + [x[activity(12, impl)[::2]], x[:1]]
    assert torch.equal(staged(buffer), torch.cat(expected))


@every_impl
def test_hessian_counts_every_active_row_once(impl):
    """Rows are unit vectors: H's diagonal counts them exactly. Inactive rows are NaN."""
    batch, features, slots = 7, 12, 40
    generator = torch.Generator().manual_seed(0)
    hessian = torch.zeros(features, features, device=device_of(impl))
    buffer = CaptureBuffer(slots, features, dtype=torch.float32, device=device_of(impl))
    truth, added = torch.zeros(features, dtype=torch.long), 0
    for step in range(25):
        if buffer.reserved + batch > slots:
            added += flush_(buffer, hessian)
        kind = torch.randint(features, (batch,), generator=generator)
        active = activity(batch, "reference", seed=step, share=(step % 5) / 4)
        x = torch.nn.functional.one_hot(kind, features).float()
        x[~active] = float("nan")
        capture_(buffer, x.to(hessian.device), active.to(hessian.device), impl=impl)
        truth += torch.bincount(kind[active], minlength=features)
    added += flush_(buffer, hessian)
    buffer.wait()
    assert added == int(truth.sum()) > 0
    assert torch.equal(hessian.tril().cpu(), truth.float().diag())


@every_impl
def test_overflow_is_refused_and_nothing_is_lost(impl):
    x = random(3, 4, dtype=torch.float32, impl=impl)
    buffer = buffer_for(x, 5)
    active = torch.tensor([True, False, False], device=x.device)
    capture_(buffer, x, active, impl=impl)
    message = r"reserve: expected at most 2 rows before a flush_ \(5 slots\), got 3"
    with pytest.raises(ValueError, match=message):
        capture_(buffer, x, active, impl=impl)
    with pytest.raises(ValueError, match=message):
        rmsnorm_capture(x, x[0], 1e-6, buffer=buffer, active=active, impl=impl)
    assert torch.equal(staged(buffer), x[:1]) and buffer.reserved == 3
    hessian = torch.zeros(4, 4, device=x.device)
    assert flush_(buffer, hessian) == 1
    capture_(buffer, x, active, impl=impl)
    assert flush_(buffer, hessian) == 1


@every_impl
def test_rows_that_did_not_fit_are_named(impl):
    """As if a CUDA graph were replayed without reserve."""
    x = random(4, 3, dtype=torch.float32, impl=impl)
    buffer, hessian = buffer_for(x, 6), torch.zeros(3, 3, device=x.device)
    buffer.rows.fill_(7)
    for _ in range(3):
        capture_(buffer, x, impl=impl)
        buffer.reserved = 0
    assert buffer.state.tolist() == [12, 0, 0, 6]
    assert torch.equal(buffer.rows[0], torch.cat([x, x[:2]]))
    assert bool((buffer.rows[1] == 7).all())
    for count in (None, 12):
        with pytest.raises(RuntimeError, match="6 of 12 rows did not fit in 6 slots and are lost"):
            flush_(buffer, hessian, count=count)
    assert not hessian.any()


def test_in_and_out_of_inference_mode():
    with torch.inference_mode():
        buffer = CaptureBuffer(4, 2, dtype=torch.float32)
        capture_(buffer, torch.ones(1, 2))
    capture_(buffer, torch.ones(1, 2, requires_grad=True))
    hessian = torch.zeros(2, 2)
    assert flush_(buffer, hessian) == 2 and not buffer.rows.requires_grad
    assert torch.equal(hessian.tril(), torch.full((2, 2), 2.0).tril())


X = torch.ones(3, 4)
BAD_CAPTURES = {
    "a list": ([1.0], None, TypeError, "expected a tensor for x, got list"),
    "other dtype": (X.bfloat16(), None, TypeError, "expected x in torch.float32 as the buffer"),
    "integers": (X.int(), None, TypeError, "expected x in bf16, fp16 or fp32"),
    "features": (
        X[:, :3],
        None,
        ValueError,
        r"expected x \[..., 4\] for this buffer, got \[3, 3\]",
    ),
    "stride": (torch.ones(4, 3).mT, None, ValueError, "unit last stride"),
    "a scalar": (torch.tensor(1.0), None, ValueError, r"expected x \[..., D\], got \[\]"),
    "mask dtype": (X, torch.ones(3), TypeError, "expected active in bool, got torch.float32"),
    "mask list": (X, [True] * 3, TypeError, "expected active in bool, got list"),
    "mask size": (X, torch.ones(4).bool(), ValueError, r"active \[3\] for x \[3, 4\], got \[4\]"),
    "device": (X.to("meta"), None, ValueError, "a tensor on the meta device"),
}


@pytest.mark.parametrize("name", BAD_CAPTURES)
def test_bad_captures_are_refused_and_write_nothing(name):
    x, active, kind, message = BAD_CAPTURES[name]
    buffer = CaptureBuffer(8, 4, dtype=torch.float32)
    with pytest.raises(kind, match=f"^capture_: .*{message}"):
        capture_(buffer, x, active)
    assert buffer.reserved == 0 and not buffer.state.any()


@pytest.mark.parametrize("impl", ["triton", "cuda"])
def test_an_implementation_that_cannot_run_says_why(impl, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    buffer = CaptureBuffer(8, 4, dtype=torch.float32)
    words = "the tensor is on the CPU" if impl == "triton" else "impl one of auto, reference"
    with pytest.raises(ValueError, match=words):
        capture_(buffer, X, impl=impl)
    assert buffer.reserved == 0
