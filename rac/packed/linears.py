"""Linears whose weights stay packed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rac_kernels import (
    Packed2to4,
    PackedBitmap,
    linear_2to4,
    linear_2to4_fp8,
    linear_bitmap,
    linear_dense,
    pack_2to4,
    pack_bitmap,
    quantize_fp8_rows,
    unpack_2to4,
    unpack_bitmap,
)

HALVES = (torch.bfloat16, torch.float16)
TAIL = 32  # values that a bitmap has room for after its last one


class PackedLinear(nn.Module):
    """`x W^T + bias`; W [R, C] is held packed, as buffers `weight_PART`.

    Packed tensors keep their dtype whatever the module is cast to: a cast concerns the bias and
    what goes in and comes out.
    """

    FORMAT: str
    PARTS: tuple[str, ...]
    _packed: Packed2to4 | PackedBitmap | None = None

    def __init__(self, packed: Packed2to4 | PackedBitmap, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = packed.shape
        for part in self.PARTS:
            self.register_buffer(f"weight_{part}", getattr(packed, part))
        self.register_parameter("bias", bias)

    @property
    def packed(self) -> Packed2to4 | PackedBitmap:
        """The weight: one object while its tensors stay, because kernels prepare copies for it."""
        parts = {part: getattr(self, f"weight_{part}") for part in self.PARTS}
        held = self._packed
        if held is None or any(getattr(held, k) is not tensor for k, tensor in parts.items()):
            held = self._packed = self._join(parts)
        return held

    def _join(self, parts: dict[str, Tensor]) -> Packed2to4 | PackedBitmap:
        return Packed2to4(**parts, rows=self.out_features)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._packed = None  # tensors stay, and get new values
        super()._load_from_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        dtype = str(self.weight_values.dtype).removeprefix("torch.")
        shape = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{shape}, bias={self.bias is not None}, dtype={dtype}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if tensor is self.bias or moved.dtype == tensor.dtype:
                return moved
            return tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    @classmethod
    def join(cls, parts: list[Packed2to4 | PackedBitmap]) -> Packed2to4 | PackedBitmap:
        """The weight [sum R_i, C] of all the parts' rows."""
        return cls.pack(torch.cat([cls.unpack(part) for part in parts]))


class Linear2to4(PackedLinear):
    """A linear with a 2:4 weight in bf16 or fp16, 9/16 of its bytes."""

    FORMAT = "2:4"
    PARTS = ("values", "metadata")
    pack, unpack = staticmethod(pack_2to4), staticmethod(unpack_2to4)

    @staticmethod
    def rows_of(packed: Packed2to4, first: int, count: int) -> Tensor:
        """The values of `count` rows from `first` on, a view."""
        return packed.values[first : first + count]

    def forward(self, x: Tensor) -> Tensor:
        """[..., R] of x [..., C], in its dtype."""
        return linear_2to4(x, self.packed, self.bias)


class Linear2to4FP8(Linear2to4):
    """A linear with a 2:4 weight in fp8, a scale a row; x is rounded to fp8 token by token."""

    FORMAT = "2:4-fp8"
    PARTS = ("values", "metadata", "scale")

    @staticmethod
    def pack(weight: Tensor) -> Packed2to4:
        """Pack a dense 2:4 weight [R, C] of any floating dtype, rounded to fp8 first."""
        values, scale = quantize_fp8_rows(weight)
        return pack_2to4(values, scale=scale)

    @classmethod
    def join(cls, parts: list[Packed2to4]) -> Packed2to4:
        """The weight [sum R_i, C] of all the parts' rows, each with its scale."""
        values = torch.cat([unpack_2to4(part).view(torch.uint8) for part in parts])
        scale = torch.cat([part.scale for part in parts])
        return pack_2to4(values.view(torch.float8_e4m3fn), scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        """[..., R] of x [..., C], in its dtype."""
        return linear_2to4_fp8(x, self.packed, self.bias)


class LinearBitmap(PackedLinear):
    """A linear with an unstructured sparse weight: its non-zeros and a bit a weight."""

    FORMAT = "bitmap"
    PARTS = ("values", "bitmap", "offsets")
    pack, unpack = staticmethod(pack_bitmap), staticmethod(unpack_bitmap)

    @staticmethod
    def rows_of(packed: PackedBitmap, first: int, count: int) -> Tensor:
        """The values of `count` rows from `first` on, a view that ends in other rows' values."""
        begin, end = packed.offsets[first], packed.offsets[first + count]
        return packed.values[begin : end + TAIL]

    def _join(self, parts: dict[str, Tensor]) -> PackedBitmap:
        return PackedBitmap(**parts, columns=self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """[..., R] of x [..., C], in its dtype."""
        return linear_bitmap(x, self.packed, self.bias)


class DenseLinear(nn.Linear):
    """A linear of a packed model that stays dense, its head above all."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., R] of x [..., C]."""
        if self.weight.dtype in HALVES and x.dtype == self.weight.dtype:
            return linear_dense(x, self.weight, self.bias)
        return super().forward(x)


LINEARS = {kind.FORMAT: kind for kind in (Linear2to4, Linear2to4FP8, LinearBitmap)}


def meta_linear(
    kind: str, shape: tuple[int, int], parts: dict[str, Any], bias: nn.Parameter | None
) -> PackedLinear:
    """A linear without storage; `parts` maps each part of its weight to (dtype, shape)."""
    tensors = {
        name: torch.empty(size, dtype=dtype, device="meta") for name, (dtype, size) in parts.items()
    }
    if kind == LinearBitmap.FORMAT:
        return LinearBitmap(PackedBitmap(**tensors, columns=shape[1]), bias)
    return LINEARS[kind](Packed2to4(**tensors, rows=shape[0]), bias)
