"""The lower triangle of a symmetric matrix in about half its memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from rac_kernels._checks import check_matrix, refuse

BLOCK_D = 128  # rows of a block row


class PackedTriangle:
    """Lower triangle of a symmetric float32 [D, D], block row after block row.

    Block row b holds rows ``128 b`` to ``min(128 (b + 1), D)`` and their columns from 0 to the same
    end, row-major, so every block row is a plain matrix that BLAS or a kernel can write::

        # # . .     D = 512: block rows of 128 x 128, 128 x 256, 128 x 384, 128 x 512, one after
        # # # .     the other: 0.5 + 64 / D of the full matrix. Entries above the diagonal, in the
        # # # #     last square of a block row, are unspecified.

    Attributes:
        data: float32 [numel(D)], contiguous.
        features: D.
    """

    def __init__(self, data: Tensor, features: int) -> None:
        """Wrap ``data`` without a copy.

        Raises:
            ValueError, TypeError: ``data`` is not a contiguous float32 vector of the length that
                ``features`` needs.
        """
        if not isinstance(data, Tensor) or data.dtype != torch.float32:
            kind = data.dtype if isinstance(data, Tensor) else type(data).__name__
            raise TypeError(f"PackedTriangle: expected data in float32, got {kind}")
        expected = self.numel(features)
        if data.shape != (expected,) or not data.is_contiguous():
            got = f"{list(data.shape)} with strides {data.stride()}"
            refuse("PackedTriangle", f"contiguous data [{expected}] for {features} features", got)
        self.data = data
        self.features = features

    @staticmethod
    def numel(features: int) -> int:
        """Floats that D = ``features`` takes."""
        if features < 0:
            refuse("PackedTriangle", "features >= 0", features)
        full, rest = divmod(features, BLOCK_D)
        return BLOCK_D**2 * full * (full + 1) // 2 + rest * features

    @classmethod
    def zeros(cls, features: int, device: torch.device | str | None = None) -> "PackedTriangle":
        """Make an empty sum."""
        return cls(torch.zeros(cls.numel(features), device=device), features)

    @classmethod
    def pack(cls, hessian: Tensor) -> "PackedTriangle":
        """Copy the lower triangle of ``hessian``, float32 [D, D].

        Raises:
            ValueError, TypeError: not a square float32 matrix.
        """
        check_matrix("PackedTriangle.pack", "hessian", hessian, (torch.float32,), square=True)
        packed = cls(hessian.new_empty(cls.numel(hessian.shape[0])), hessian.shape[0])
        for start, end, rows in packed.block_rows():
            rows.copy_(hessian[start:end, :end])
        return packed

    def unpack(self, out: Tensor | None = None) -> Tensor:
        """Return the lower triangle as float32 [D, D], zero above the diagonal.

        Args:
            out: where to; entries above the diagonal are overwritten with zeros.

        Raises:
            ValueError, TypeError: ``out`` has another shape or dtype.
        """
        shape = (self.features, self.features)
        if out is None:
            out = self.data.new_empty(shape)
        check_matrix("PackedTriangle.unpack", "out", out, (torch.float32,), shape=shape)
        for start, end, rows in self.block_rows():
            out[start:end, :end].copy_(rows)
            out[start:end, end:].zero_()
            out[start:end, start:end].tril_()
        return out

    def block_row(self, index: int) -> Tensor:
        """Block row ``index``, a view [<= 128, end]: the rows up to ``end``, columns from 0 to it.

        Raises:
            ValueError: no such block row.
        """
        if not 0 <= index < -(-self.features // BLOCK_D):
            refuse("PackedTriangle.block_row", f"an index of {self.features} features", index)
        start = BLOCK_D * index
        end = min(start + BLOCK_D, self.features)
        offset = BLOCK_D**2 * index * (index + 1) // 2
        return self.data[offset : offset + (end - start) * end].view(end - start, end)

    def block_rows(self) -> Iterator[tuple[int, int, Tensor]]:
        """Every block row as (first row, row after the last, view)."""
        for start in range(0, self.features, BLOCK_D):
            end = min(start + BLOCK_D, self.features)
            yield start, end, self.block_row(start // BLOCK_D)

    def diagonal(self) -> Tensor:
        """Copy the diagonal, float32 [D]."""
        if self.features == 0:
            return self.data.clone()
        return torch.cat([rows.diagonal(start) for start, _, rows in self.block_rows()])

    def copy_(self, other: "PackedTriangle") -> "PackedTriangle":
        """Overwrite with the values of ``other``, which may be on another device.

        Raises:
            ValueError: other features.
        """
        if other.features != self.features:
            refuse("PackedTriangle.copy_", f"{self.features} features", other.features)
        self.data.copy_(other.data)
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return self.data.nbytes

    @property
    def device(self) -> torch.device:
        """Where the data is."""
        return self.data.device

    def __repr__(self) -> str:
        return f"PackedTriangle(features={self.features}, device={str(self.device)!r})"
