"""Sparse weights that take no room for their zeros."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

ROWS = {2: 32, 1: 16}  # bytes of a value -> what packed rows are padded to
COLUMNS = {2: 32, 1: 64}  # bytes of a value -> what in_features must be a multiple of
TAIL = 32  # zeros after the last value of a bitmap


class _Tensors:
    """What dataclasses of tensors share."""

    # Whether ops/ has seen that the parts fit each other; each object begins without.
    _checked: ClassVar[bool] = False

    def map(self, function: Callable[[Tensor], Tensor]) -> "_Tensors":
        """Apply ``function`` to every tensor: the same object with others."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: function(v) for k, v in parts.items() if isinstance(v, Tensor)})

    def to(self, device: torch.device | str) -> "_Tensors":
        """Copy to ``device``."""
        return self.map(lambda tensor: tensor.to(device))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        parts = (getattr(self, f.name) for f in fields(self))
        return sum(part.nbytes for part in parts if isinstance(part, Tensor))


@dataclass(frozen=True, eq=False)
class Packed2to4(_Tensors):
    """A weight [R, C] with two values of every four neighbours of a row, 9/16 of its bytes.

    Attributes:
        values: bf16, fp16, int8 or fp8_e4m3 [R', C / 2], R' = R padded with rows of zeros to a
            multiple of 32 (of 16 for 8-bit values).
        metadata: where in its group of four each value is, two bits a value, in the order of
            CUTLASS's ColumnMajorInterleaved<2>, as torch's own conversion makes it: int16
            [R', C / 16] for 16-bit values, int32 [R', C / 32] for 8-bit ones.
        rows: R.
        scale: float32 [R] or None: the weight is ``scale[:, None]`` times what is packed.
    """

    values: Tensor
    metadata: Tensor
    rows: int
    scale: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(R, C), out_features and in_features."""
        return self.rows, 2 * self.values.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.values.dtype


@dataclass(frozen=True, eq=False)
class PackedBitmap(_Tensors):
    """A weight [R, C] as its non-zero values and one bit for each weight.

    Attributes:
        values: bf16 or fp16 [N + 32]: the non-zeros, row after row, then 32 zeros, so that a vector
            may be loaded from any of them.
        bitmap: uint8 [R, ceil(C / 8)]: bit ``j % 8`` of byte ``j // 8`` says that w_ij is not 0.
        offsets: int64 [R + 1]: where each row's values begin.
        columns: C.
    """

    values: Tensor
    bitmap: Tensor
    offsets: Tensor
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """(R, C), out_features and in_features."""
        return self.bitmap.shape[0], self.columns

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.values.dtype
