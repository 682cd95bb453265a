"""Where a model's keys and values lie."""

from collections.abc import Sequence

from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import refuse


class KeyValueCaches:
    """Keys and values [B, K, S, D] of every layer, of one layout: looked at once for many steps.

    Args:
        layers: keys and values of each.

    Raises:
        ValueError: they differ in shape, strides, dtype or device.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.layers = list(layers)
        first = self.layers[0] if layers else refuse("KeyValueCaches", "at least one layer", 0)
        for pair in self.layers:
            for tensor, like in zip(pair, first, strict=True):
                layout, other = ((t.shape, t.stride(), t.dtype, t.device) for t in (tensor, like))
                if layout != other:
                    refuse("KeyValueCaches", f"all layers alike, {other}", layout)
        self.places = _native.cache_places(self.layers)
