"""Whole decoder layers of a decode step, in C++."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rac_kernels._native.capture import mask_address, ring_addresses
from rac_kernels._native.linear import shared_weight
from rac_kernels._native.loading import CPU, DTYPES, PARALLEL, load, threads
from rac_kernels.capture import Ring
from rac_kernels.packed import Packed2to4, PackedBitmap

Weight = Tensor | Packed2to4 | PackedBitmap


class NativeLayer:
    """What the kernels read of a layer: `layer` has addresses in `kept`.

    Args:
        norms: weight and eps of the norms before attention and MLP, of queries and of keys; None
            for the last two where there are none.
        linears: weight and bias of q, k and v joined, of o, of gate and up joined, of down.
        sizes: key/value heads, query heads to each, features of a head.
        scaling: of scores.
    """

    def __init__(
        self,
        norms: list[tuple[Tensor, float] | None],
        linears: list[tuple[Weight, Tensor | None]],
        sizes: tuple[int, int, int],
        scaling: float,
    ) -> None:
        self.kept: list[Any] = [norms, linears]
        self.elements = sum(weight.shape[0] * weight.shape[1] for weight, _ in linears)
        joined = [self._linear(weight, bias) for weight, bias in linears]
        first = norms[0]
        assert first is not None
        addresses = [(0, 0.0) if norm is None else (norm[0].data_ptr(), norm[1]) for norm in norms]
        dtype = DTYPES[first[0].dtype]
        self.layer = load(CPU).DecoderLayer(addresses, joined, *sizes, scaling, dtype)

    def _linear(self, weight: Weight, bias: Tensor | None) -> tuple[Any, int, bool]:
        shared = shared_weight(weight)
        bias = None if bias is None else bias.detach().float().contiguous()
        self.kept += [shared, bias]
        rounds_x = isinstance(weight, Packed2to4) and weight.dtype == torch.float8_e4m3fn
        return shared.weight, 0 if bias is None else bias.data_ptr(), rounds_x


Places = tuple[list[int], tuple[int, ...]]  # of every layer's keys, or values: address, strides


def cache_places(layers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Places, Places]:
    """Where the keys and the values of layers lie, [B, K, S, D] each, strides the same in all."""
    keys, values = zip(*layers, strict=True)
    return (
        ([x.data_ptr() for x in keys], keys[0].stride()[:3]),
        ([x.data_ptr() for x in values], values[0].stride()[:3]),
    )


def decode_layers(
    layers: Sequence[NativeLayer],
    x: Tensor,
    places: tuple[Places, Places],
    columns: tuple[int, int],
    mask: Tensor | None,
    rotary: tuple[Tensor, Tensor],
    rings: Sequence[Ring | None],
) -> Tensor:
    """What layers give one after the other, [B, C] of x [B, C], contiguous.

    Keys and values are in `places`, `columns` being the first and how many. There are none or four
    of `rings` a layer; a cosine and sine row each, [B, D].
    """
    y = torch.empty_like(x)
    cosine, sine = rotary
    batch = x.shape[0]
    most = max(layer.elements for layer in layers)
    load(CPU).decode_layers(
        [layer.layer for layer in layers],
        x.data_ptr(),
        y.data_ptr(),
        cosine.data_ptr(),
        sine.data_ptr(),
        cosine.stride(0),
        *places,
        columns[0],
        *mask_address(mask),
        batch,
        columns[1],
        1 if batch * most < PARALLEL else threads(),
        [ring_addresses(ring) for ring in rings],
    )
    return y
