"""A key/value cache whose storage grows by doubling, so that a decode step copies nothing old."""

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, [B, heads, columns, head_dim], views of larger buffers."""

    buffers: tuple[Tensor, Tensor] | None = None
    start = 0

    def _reserve(self, columns: int, like: tuple[Tensor, Tensor]) -> None:
        """Make the buffers hold `columns` more columns, moving the used ones to the front."""
        used = self.get_seq_length()
        if self.buffers is not None and self.start + used + columns <= self.buffers[0].shape[-2]:
            return
        capacity = max(64, 2 * (used + columns))
        new = tuple(t.new_zeros(*t.shape[:-2], capacity, t.shape[-1]) for t in like)
        if used:
            new[0][..., :used, :] = self.keys
            new[1][..., :used, :] = self.values
        self.buffers, self.start = (new[0], new[1]), 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append columns; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        columns = key_states.shape[-2]
        self._reserve(columns, (key_states, value_states))
        assert self.buffers is not None
        end = self.start + self.get_seq_length()
        self.buffers[0][..., end : end + columns, :] = key_states
        self.buffers[1][..., end : end + columns, :] = value_states
        self._view(end + columns)
        return self.keys, self.values

    def _view(self, end: int) -> None:
        assert self.buffers is not None
        self.keys = self.buffers[0][..., self.start : end, :]
        self.values = self.buffers[1][..., self.start : end, :]

    def drop_left(self, columns: int) -> None:
        """Forget the oldest `columns` columns."""
        end = self.start + self.get_seq_length()
        self.start += columns
        self._view(end)

    def pad_left(self, columns: int) -> None:
        """Put `columns` zero columns before the oldest one."""
        keys, values = self.keys, self.values
        zeros = keys.new_zeros(*keys.shape[:-2], columns, keys.shape[-1])
        zeros_v = values.new_zeros(*values.shape[:-2], columns, values.shape[-1])
        self.buffers, self.start = None, 0
        self.keys, self.values = keys[..., :0, :], values[..., :0, :]
        self.update(zeros, zeros_v)
        self.update(keys, values)

    def write_rows(self, rows: Tensor, other: "GrowingLayer") -> None:
        """Right-align `other`'s rows into `rows` of this layer; older columns keep stale values."""
        columns = other.get_seq_length()
        self.keys[rows, :, -columns:] = other.keys
        self.values[rows, :, -columns:] = other.values

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only `rows` of the batch."""
        keys, values = self.keys[rows], self.values[rows]
        self.buffers, self.start = None, 0
        self.keys, self.values = keys[..., :0, :], values[..., :0, :]
        self.update(keys, values)


class GrowingCache(Cache):
    """A transformers cache of `GrowingLayer`s; sliding-window layers keep every column too."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=GrowingLayer)

    def state_dict(self) -> dict:
        """Buffers as they lie in memory, so that a restored cache computes the same bits."""
        return {
            "layers": [
                {"buffers": list(x.buffers), "start": x.start, "columns": x.get_seq_length()}
                for x in self.layers
            ]
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` gave."""
        self.layers = []
        for saved in state["layers"]:
            layer = GrowingLayer()
            layer.lazy_initialization(*saved["buffers"])
            layer.buffers, layer.start = tuple(saved["buffers"]), saved["start"]
            layer._view(saved["start"] + saved["columns"])
            self.layers.append(layer)
