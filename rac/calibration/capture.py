"""Hessians that grow while the model runs: the inputs of its linears, real tokens only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rac.calibration.groups import Group, input_hooks, not_finite
from rac.engines.fused import producers
from rac.errors import UserError
from rac.models import linears
from rac_kernels import CaptureBuffer, PackedTriangle, capture_, flush_, hessian_accumulate_

# Rows staged before a rank-k update. On a GPU fewer than ~730 are bound by reading and writing H;
# on a CPU a few hundred are enough, and staging takes memory.
STAGED_TOKENS = {"cpu": 512, "cuda": 2048}


def staged_tokens(device: torch.device) -> int:
    """Rows that a staging buffer holds on `device`."""
    return STAGED_TOKENS.get(device.type, STAGED_TOKENS["cuda"])


class HessianCollector:
    """Accumulates `H = sum_t x_t x_t^T` (packed lower triangle, float32) for every group.

    Use it as an engine's observer inside `attached`. Activations of decode steps, and of prompts
    too short for an update of their own, are staged in a ring and added many steps at a time;
    those of longer forwards are added at once. Neither copies anything to the host.

    `tokens` counts the prompt part and the decoded part apart.
    """

    def __init__(self, model: PreTrainedModel, groups: list[Group]) -> None:
        self.model, self.groups = model, groups
        self.device = next(model.parameters()).device
        self.hessians = {g.name: PackedTriangle.zeros(g.in_features, self.device) for g in groups}
        self.tokens = {"prompt": 0, "decode": 0}
        self.slots = staged_tokens(self.device)
        self._buffers: dict[str, CaptureBuffer] = {}
        # One row a buffer, read with one copy; one stream, so that flushes follow each other.
        self._counts = torch.zeros(len(groups), 4, dtype=torch.int32, device=self.device)
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._staged = 0  # rows in the ring; the same in every buffer
        self._claimed = 0  # rows that could be in the ring, had every row of each step been active
        self._active: Tensor | None = None  # rows of the coming forward to stage
        self._weight: Tensor | None = None  # or to add at once: 1 where real, None if all are
        self._unchecked: set[str] = set()  # groups with rows not yet known to be finite

    @contextmanager
    def attached(self) -> Iterator["HessianCollector"]:
        """Watch the model for the length of a `with` block.

        Where a fused forward makes what a group reads, it hands it over itself; elsewhere a hook
        on the group's first linear does.
        """
        modules = linears(self.model)
        readers = {group.name: modules[group.name] for group in self.groups}
        makers = producers(self.model, readers)
        for name, maker in makers.items():
            maker.sink, maker.group = self, name
        try:
            hooked = {name: module for name, module in readers.items() if name not in makers}
            with input_hooks(hooked, self.capture):
                yield self
        finally:
            for maker in makers.values():
                maker.sink = None

    def hessian(self, name: str) -> Tensor:
        """H [C, C] of a group, a copy: its lower triangle, zeros above."""
        return self.hessians[name].unpack()

    def forward(self, real: Tensor, *, prompt: int = 0, decode: int = 0) -> None:
        """A forward over whole sequences follows; `real` bool [B, T] marks its real tokens.

        `prompt` and `decode` are how many of them belong to prompts and to what was decoded.
        """
        self.tokens["prompt"] += prompt
        self.tokens["decode"] += decode
        if real.numel() <= self.slots // 2:
            self._claim(real.numel(), prompt + decode)
            self._active = real
        else:
            self._check()
            self._active = None
            self._weight = None if prompt + decode == real.numel() else real

    def prefill(self, real: Tensor, tokens: int) -> None:
        """A forward over prompts follows; `real` bool [B, T] marks its `tokens` real tokens."""
        self.forward(real, prompt=tokens)

    def open_step(self, rows: int, tokens: int) -> None:
        """A decode step of `rows` rows follows, `tokens` of them active. Runs on the host."""
        self.tokens["decode"] += tokens
        self._claim(rows, tokens)

    def step(self, active: Tensor) -> None:
        """`active` bool [B] marks the rows of the coming decode step; a graph may record it."""
        self._active = active

    def _claim(self, rows: int, tokens: int) -> None:
        """Make room in the ring for `rows` rows, `tokens` of them active."""
        if self._claimed + rows > self.slots:
            self.flush()
        if rows > self.slots:
            self._buffers.clear()
            self.slots = rows
        self._claimed += rows
        self._staged += tokens

    def capture(self, name: str, x: Tensor) -> None:
        """Take what enters the linears of group `name` in the forward announced last."""
        announced = self._active if self._active is not None else self._weight
        if announced is not None and x.shape[:-1].numel() != announced.numel():
            raise UserError(
                f"{name} reads {list(x.shape)} where {announced.numel()} tokens go into the model: "
                "leave it out with --exclude"
            )
        buffer, active = self.staging(name, x)
        if buffer is not None:
            capture_(buffer, x, active)
            return
        weight = self._weight if self._weight is None else self._weight.view(x.shape[:-1])
        hessian_accumulate_(self.hessians[name], x, row_weight=weight)
        self._unchecked.add(name)

    def staging(self, name: str, x: Tensor) -> tuple[CaptureBuffer | None, Tensor | None]:
        """The ring of group `name` for rows like `x`, and the active ones; None: not staged now."""
        if self._active is None:
            return None, None
        return self._buffer(name, x), self._active.view(x.shape[:-1])

    def _buffer(self, name: str, x: Tensor) -> CaptureBuffer:
        if name not in self._buffers:
            self._buffers[name] = CaptureBuffer(
                self.slots,
                x.shape[-1],
                dtype=x.dtype,
                device=x.device,
                state=self._counts[len(self._buffers)],
                stream=self._stream,
            )
        return self._buffers[name]

    def flush(self) -> None:
        """Add the staged rows to the Hessians, on a GPU while the model goes on.

        Raises:
            UserError: a layer's activations held NaN or Inf before this flush.
        """
        self._check()
        counts = self._counts[:, 0].tolist()
        for count, (name, buffer) in zip(counts, self._buffers.items(), strict=False):
            if count != self._staged:
                raise RuntimeError(f"{name}: {count} rows staged for {self._staged} active tokens")
            flush_(buffer, self.hessians[name], count=count)
            self._unchecked.add(name)
        self._staged = self._claimed = 0

    def finish(self) -> None:
        """Add what is staged and wait until the Hessians can be read.

        Raises:
            UserError: a layer's activations held NaN or Inf.
        """
        self.flush()
        self._check()

    def _check(self) -> None:
        """Refuse Hessians that are not finite, with one synchronisation for all of them.

        The last row of H is sum_t x_tD x_t: NaN or Inf anywhere in X makes an entry of it so.
        """
        if not self._unchecked:
            return
        for buffer in self._buffers.values():
            buffer.wait()
        names = [name for name in self.hessians if name in self._unchecked]
        last_rows = [h.data[-h.features :] for h in map(self.hessians.get, names)]
        finite = torch.stack([row.sum() for row in last_rows]).isfinite()
        self._unchecked.clear()
        for name, good in zip(names, finite.tolist(), strict=True):
            if not good:
                raise not_finite(name)

    def state_dict(self) -> dict[str, Any]:
        """Everything, staged rows too, so that a restored collector adds up to the same bits."""
        self._check()
        return {
            "hessians": {name: hessian.data for name, hessian in self.hessians.items()},
            "tokens": dict(self.tokens),
            "staged": {name: buffer.state_dict() for name, buffer in self._buffers.items()},
            "counts": [self.slots, self._staged, self._claimed],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, data in state["hessians"].items():
            self.hessians[name].data.copy_(data)
        self.tokens = dict(state["tokens"])
        self.slots, self._staged, self._claimed = state["counts"]
        self._buffers.clear()
        for name, staged in state["staged"].items():
            self._buffer(name, staged["rows"].to(self.device)).load_state_dict(staged)
