"""The staging ring between a decode loop and the rank-k updates."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rac_kernels._checks import FLOATS, refuse


class Ring(NamedTuple):
    """What a kernel that appends rows is handed."""

    rows: Tensor  # [2, slots, D]
    state: Tensor  # int32 [4]
    active: Tensor | None  # bool [B], contiguous; None: every row is


class CaptureBuffer:
    """A staging ring of activation rows: while one half is added to H, the other one fills.

    The cursor lives on the device, so that captures may be nodes of a CUDA graph; what the host
    knows is the worst case, ``reserved``. On a GPU a flush runs on a side stream: whatever else
    touches H must come after :meth:`wait`. On a CPU it is done when ``flush_`` returns.

    Attributes:
        rows: [2, slots, D].
        state: int32 [4]: rows appended to the filling half; which half that is; a ticket, 0 between
            kernels; rows that did not fit, ever. Appended rows are counted even where they do not
            fit, so that ``state[0] > slots`` tells of lost rows.
        slots: rows of one half.
        features: D.
        dtype: of the rows.
        device: of the rows.
        reserved: the most rows that the filling half can hold by now.
        half: the half that will be filling when everything launched so far has run.
        stream: where flushes run on a GPU; None on a CPU.
    """

    def __init__(
        self,
        slots: int,
        features: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str | None = None,
        state: Tensor | None = None,
        stream: "torch.cuda.Stream | None" = None,
    ) -> None:
        """Allocate ``2 * slots * features`` elements.

        Args:
            slots: rows of each half: the most that may be appended between two flushes.
            features: D, the in_features of the linears.
            dtype: bf16, fp16 or fp32.
            device: of the rows; None is torch's default.
            state: int32 [4] on that device to keep the counts in, set to 0; a row of a [G, 4]
                tensor lets the counts of G buffers be read with one copy. None: made here.
            stream: where flushes run on a GPU, may be shared; None: one of its own.

        Raises:
            ValueError, TypeError: sizes below 1, dtype, or a state that does not fit.
        """
        if slots < 1 or features < 1:
            refuse("CaptureBuffer", "slots and features >= 1", f"{slots} and {features}")
        if dtype not in FLOATS:
            raise TypeError(f"CaptureBuffer: expected dtype bf16, fp16 or fp32, got {dtype}")
        self.slots, self.features, self.dtype = slots, features, dtype
        with torch.inference_mode(False):  # usable inside and outside inference mode
            self.rows = torch.empty(2, slots, features, dtype=dtype, device=device)
            self.device = self.rows.device
            empty = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32)
            self._empty = empty.to(self.device)  # states of an empty half 0 and 1
            self.state = self._empty[0].clone() if state is None else state
        self._check_state()
        self.state.zero_()
        self.half, self.reserved, self.stream = 0, 0, stream
        self._flushed: list[torch.cuda.Event | None] = [None, None]
        if self.device.type == "cuda" and stream is None:
            self.stream = torch.cuda.Stream(self.device)

    def _check_state(self) -> None:
        state = self.state
        found = (state.dtype, tuple(state.shape), state.is_contiguous(), state.device)
        if found != (torch.int32, (4,), True, self.device):
            expected = f"a contiguous int32 state [4] on {self.device}"
            refuse("CaptureBuffer", expected, f"{state.dtype} {list(state.shape)}, {state.device}")

    def reserve(self, rows: int) -> None:
        """Count ``rows`` more in the worst case; called once before every replay of a CUDA graph.

        Captures outside of a graph call it themselves.

        Raises:
            ValueError: they might not fit; nothing is counted or written: flush first.
        """
        if rows < 0 or self.reserved + rows > self.slots:
            room = self.slots - self.reserved
            refuse("reserve", f"at most {room} rows before a flush_ ({self.slots} slots)", rows)
        self.reserved += rows

    def wait(self) -> None:
        """Make the current stream wait for the flushes that are under way; the host does not."""
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)

    @contextmanager
    def flushing(self, *tensors: Tensor) -> Iterator[None]:
        """What is launched inside may read the filling half; afterwards the other half fills.

        Nothing changes if it raises. ``tensors`` are what else it uses.
        """
        if self.stream is None:
            yield
            self._flip()
            return
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
            self._flushed[self.half] = self.stream.record_event()
        for tensor in (self.rows, *tensors):
            tensor.record_stream(self.stream)
        before = self._flushed[1 - self.half]
        if before is not None:  # the half that fills next is still being read
            current.wait_event(before)
        self._flip()

    def _flip(self) -> None:
        self.half, self.reserved = 1 - self.half, 0
        self.state[:3].copy_(self._empty[self.half, :3])

    def state_dict(self) -> dict[str, Any]:
        """The rows not yet flushed and what is reserved, for `torch.save`; waits for the device."""
        count = min(int(self.state[0]), self.slots)
        return {"rows": self.rows[self.half, :count].clone(), "reserved": self.reserved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave; outstanding rows of this buffer are dropped.

        Raises:
            ValueError: the rows do not fit this buffer.
        """
        rows = state["rows"]
        if rows.shape[0] > self.slots or rows.shape[1:] != (self.features,):
            expected = f"rows [<= {self.slots}, {self.features}]"
            refuse("CaptureBuffer.load_state_dict", expected, list(rows.shape))
        self.rows[self.half, : rows.shape[0]] = rows.to(self.rows)
        self.state[0] = rows.shape[0]
        self.reserved = state["reserved"]
