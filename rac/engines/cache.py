"""A key/value cache of slots: a row a sequence, all rows on one timeline of columns.

A row's tokens are the columns from its start on, so a 2D mask and position ids are all a model
needs to know, whatever its attention. Storage stays where it is from step to step (a CUDA graph
has its addresses in it) and is only moved when a row needs more columns than there are.
"""

import weakref
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from rac_kernels import KeyValueCaches

MIN_COLUMNS = 64


def cache_columns(longest: int) -> int:
    """Columns for rows of at most `longest` tokens, with slack, so that moving them is rare."""
    return longest + max(MIN_COLUMNS, longest // 8)


class SlotLayer(DynamicLayer):
    """One layer's keys and values, [rows, heads, capacity, head_dim] each."""

    def __init__(self, cache: "SlotCache") -> None:
        super().__init__()
        self.cache = weakref.proxy(cache)  # no cycle: the cache's memory is freed with it
        self.buffers: tuple[Tensor, Tensor] | None = None
        self.is_compileable = cache.cursor is not None  # then masks are made without a host sync

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the column after the last one; returns what a step attends over."""
        assert self.buffers is not None
        cache, new = self.cache, (key_states, value_states)
        if cache.cursor is not None:
            for buffer, states in zip(self.buffers, new, strict=True):
                buffer.index_copy_(2, cache.cursor, states)
            keys, values = (buffer[:, :, : cache.window] for buffer in self.buffers)
            return keys, values
        for buffer, states in zip(self.buffers, new, strict=True):
            buffer[:, :, cache.end : cache.end + 1] = states
        return self.columns()

    def columns(self) -> tuple[Tensor, Tensor]:
        """What a step attends over, whose last column it writes: [rows, heads, S, head_dim]."""
        assert self.buffers is not None and self.cache.cursor is None
        start, end = self.cache.start, self.cache.end + 1
        keys, values = (buffer[:, :, start:end] for buffer in self.buffers)
        return keys, values

    def get_seq_length(self) -> Any:
        """Columns before the present one; on the device where a graph needs it there."""
        cache = self.cache
        return cache.end - cache.start if cache.cursor is None else cache.cursor[0]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns a mask covers, from column 0 of what `update` returns."""
        cache = self.cache
        used = cache.end - cache.start + query_length
        return (used if cache.cursor is None else cache.window), 0

    def move(self, rows: int, capacity: int, source: Any, old: slice, new: slice) -> None:
        """Storage for `rows` x `capacity`, with columns `old` of row `source` at `new`."""
        assert self.buffers is not None
        moved = []
        for buffer in self.buffers:
            fresh = buffer.new_zeros(rows, buffer.shape[1], capacity, buffer.shape[3])
            fresh[:, :, new] = buffer[source, :, old]
            moved.append(fresh)
        self.buffers = (moved[0], moved[1])


class SlotCache(Cache):
    """The decode cache. Columns [start, end) are in use.

    With `static`, a step attends over columns [0, window) and writes where `cursor`, on the device,
    points to, so that a recorded step can be replayed; without, over the columns in use.

    Args:
        prefilled: a cache whose rows are the first ones; its layers give shapes and dtypes.
        longest: the most columns that one row may need.
        static: see above.
    """

    def __init__(self, prefilled: Cache, longest: int, static: bool) -> None:
        first = prefilled.layers[0].keys
        self.cursor = torch.zeros(1, dtype=torch.long, device=first.device) if static else None
        super().__init__(layers=[SlotLayer(self) for _ in prefilled.layers])
        self.rows, self.start, self.end, self.window = first.shape[0], 0, first.shape[2], 0
        self.limit = cache_columns(longest)
        self.capacity = max(self.end, self.limit) if static else self._roomy(self.end)
        self.moves = 0
        self._storage: KeyValueCaches | None = None
        for layer, new in zip(self.layers, prefilled.layers, strict=True):
            layer.buffers = (new.keys, new.values)
            layer.is_initialized = True
            layer.move(self.rows, self.capacity, slice(None), slice(None), slice(0, self.end))

    def _roomy(self, columns: int) -> int:
        return max(columns, min(self.limit, max(MIN_COLUMNS, 2 * columns)))

    @property
    def used(self) -> int:
        """Columns in use."""
        return self.end - self.start

    def open_step(self) -> None:
        """Make room for one more column."""
        if self.end == self.capacity:
            self._arrange(0, self._roomy(self.used + 1))
        if self.cursor is None:
            return
        if _window(self.used + 1) < _window(self.end + 1):
            self._arrange(0, self.capacity)
        self.window = min(_window(self.end + 1), self.capacity)
        self.cursor.fill_(self.end)

    def storage(self) -> KeyValueCaches:
        """Where all layers' keys and values are, every column of them."""
        buffers = [layer.buffers for layer in self.layers]
        held = self._storage
        if held is None or any(a is not b for a, b in zip(held.layers, buffers, strict=True)):
            held = self._storage = KeyValueCaches(buffers)
        return held

    def close_step(self) -> None:
        """The column has been written."""
        self.end += 1

    def _arrange(self, start: int, capacity: int) -> None:
        """Move the columns in use to `start`, into storage of `capacity` columns."""
        old, new = slice(self.start, self.end), slice(start, start + self.used)
        if capacity == self.capacity:
            for layer in self.layers:
                for buffer in layer.buffers:
                    buffer[:, :, new] = buffer[:, :, old].clone()
        else:
            self._move(self.rows, capacity, slice(None), old, new)
        self.start, self.end = new.start, new.stop

    def _move(self, rows: int, capacity: int, source: Any, old: slice, new: slice) -> None:
        self._storage = None  # it would hold the old buffers
        for layer in self.layers:
            layer.move(rows, capacity, source, old, new)
        self.rows, self.capacity = rows, capacity
        self.moves += 1

    def place(self, prefilled: Cache, rows: Tensor) -> int:
        """Write a prefilled cache into `rows`, aligned on the right; returns columns added left."""
        columns = prefilled.layers[0].keys.shape[2]
        missing = max(0, columns - self.used)
        if missing > self.start:
            fits = self.used + missing <= self.capacity
            self._arrange(missing, self.capacity if fits else self._roomy(self.used + missing))
        self.start -= missing
        for layer, new in zip(self.layers, prefilled.layers, strict=True):
            for buffer, states in zip(layer.buffers, (new.keys, new.values), strict=True):
                buffer[rows, :, self.end - columns : self.end] = states
        return missing

    def drop_left(self, columns: int) -> None:
        """Forget the oldest `columns` columns."""
        self.start += columns

    def keep_rows(self, rows: Tensor) -> None:
        """Make the batch of its present `rows`; a row may be named more than once."""
        used = slice(self.start, self.end)
        self._move(len(rows), self.capacity, rows, used, used)

    def state_dict(self) -> dict[str, Any]:
        """The columns in use and where they lie, so that a restored cache computes the same."""
        used = slice(self.start, self.end)
        names = ("rows", "start", "end", "limit", "capacity")
        return {name: getattr(self, name) for name in names} | {
            "static": self.cursor is not None,
            "layers": [[b[:, :, used].clone() for b in layer.buffers] for layer in self.layers],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> "SlotCache":
        """The cache that `state_dict` described."""
        prefilled = Cache(layers=[DynamicLayer() for _ in state["layers"]])
        for layer, (keys, values) in zip(prefilled.layers, state["layers"], strict=True):
            layer.keys, layer.values = keys.to(device), values.to(device)
        cache = cls(prefilled, 0, state["static"])
        old = slice(0, state["end"] - state["start"])
        new = slice(state["start"], state["end"])
        cache._move(state["rows"], state["capacity"], slice(None), old, new)
        cache.start, cache.end, cache.limit = state["start"], state["end"], state["limit"]
        return cache


def _window(columns: int) -> int:
    """`columns` rounded up to 2^k or 1.5 * 2^k: few sizes, so few graphs; at most 1.5x too many."""
    size = MIN_COLUMNS
    while size < columns:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size
