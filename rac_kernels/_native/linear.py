"""Linears with packed weights, and with dense ones of 16 bits, in C++.

Weights are moved to huge pages before they are first read: they are read at every call.
"""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from rac_kernels._native.bitmap import unpack_rows
from rac_kernels._native.loading import CPU, DTYPES, instruction_set, load, threads
from rac_kernels.packed import Packed2to4, PackedBitmap

_VALUES = {torch.bfloat16: 0, torch.float16: 1, torch.int8: 2, torch.float8_e4m3fn: 3}
# Multiply-adds from which a second thread pays for being woken.
_PARALLEL = 1 << 18
# Tokens from which unpacking a weight for torch's own tiles of bf16 takes less time.
_MANY_TOKENS = 512
_UNPACKED_BYTES = 8 << 20
_HUGE_PAGE = 2 << 20


class _Prepared:
    """What the kernels read of a packed weight, found once: `weight` has addresses in `kept`."""

    def __init__(self, packed: Packed2to4 | PackedBitmap) -> None:
        module = load(CPU)
        packed = packed.map(Tensor.contiguous)
        if isinstance(packed, PackedBitmap):
            self.codes, offsets, scale = packed.bitmap, packed.offsets, None
        else:
            self.codes, offsets, scale = _codes_2to4(packed), None, packed.scale
        if packed.dtype == torch.float8_e4m3fn:
            scale = _with_nan(packed)
        if scale is not None:
            scale = scale.float().contiguous()
        for tensor in (packed.values, self.codes):
            _to_huge_pages(tensor)
        self.rows, columns = packed.shape
        self.kept = (packed.values, self.codes, offsets, scale)
        addresses = (0 if t is None else t.data_ptr() for t in self.kept)
        self.weight = module.SparseWeight(*addresses, self.rows, columns, _VALUES[packed.dtype])


# An entry goes with its weight.
_prepared: weakref.WeakKeyDictionary[Packed2to4 | PackedBitmap, _Prepared] = (
    weakref.WeakKeyDictionary()
)


def _prepare(packed: Packed2to4 | PackedBitmap) -> _Prepared:
    prepared = _prepared.get(packed)
    if prepared is None:
        prepared = _prepared[packed] = _Prepared(packed)
    return prepared


def codes_of(packed: Packed2to4 | PackedBitmap) -> Tensor:
    """The bitmap, or the metadata as uint8 [R' / 4, C / 32, 4, 4], made once for a weight.

    In CUTLASS's order a tile of 32 rows lies in C / 32 pieces, 4 R' bytes apart, each in another
    page of memory; here four rows stream beside their values, for 1/16 of the dense weight's bytes.
    """
    return _prepare(packed).codes


def _codes_2to4(packed: Packed2to4) -> Tensor:
    rows, half = packed.values.shape
    codes = torch.empty(rows // 4, half // 16, 4, 4, dtype=torch.uint8)
    load(CPU).codes_2to4(
        packed.metadata.data_ptr(),
        codes.data_ptr(),
        rows,
        2 * half,
        packed.values.element_size(),
        threads(),
    )
    return codes


def _with_nan(packed: Packed2to4) -> Tensor | None:
    """The scales, NaN where a row has one: the kernel takes a NaN of e4m3 for 480."""
    bad = ((packed.values.view(torch.uint8) & 0x7F) == 0x7F).any(1)[: packed.rows]
    if not bool(bad.any()):
        return packed.scale
    scale = torch.ones(packed.rows) if packed.scale is None else packed.scale
    return scale.masked_fill(bad, torch.nan)


def linear_packed(
    x: Tensor,
    packed: Packed2to4 | PackedBitmap,
    bias: Tensor | None,
    *,
    rounds_x: bool = False,
) -> Tensor:
    """``x W^T + bias`` [..., R] of x [..., C] on the CPU, x rounded to e4m3 by row if asked."""
    held = _prepare(packed)
    if _is_better_unpacked(x, packed, bias):
        return _unpacked(x, held, packed, bias)
    return _linear(x, held.weight, held.rows, bias, rounds_x)


def _is_better_unpacked(x: Tensor, packed: Packed2to4 | PackedBitmap, bias: Tensor | None) -> bool:
    """Whether torch's product of ``x`` [..., C] with the dense weight saves what that takes."""
    bf16 = x.dtype == packed.dtype == torch.bfloat16 and (bias is None or bias.dtype == x.dtype)
    if not bf16 or instruction_set() != "amx":
        return False
    scaled = isinstance(packed, Packed2to4) and packed.scale is not None
    return not scaled and x.numel() >= _MANY_TOKENS * x.shape[-1]


def _unpacked(
    x: Tensor, held: _Prepared, packed: Packed2to4 | PackedBitmap, bias: Tensor | None
) -> Tensor:
    """The product by torch, of as many rows of the weight at a time as stay in caches."""
    rows, columns = packed.shape
    step = max(256, _UNPACKED_BYTES // (2 * columns) // 256 * 256)
    memory = torch.empty(min(step, -(-rows // 4) * 4), columns, dtype=x.dtype)
    y = x.new_empty(*x.shape[:-1], rows)
    packed = packed.map(Tensor.contiguous)
    for first in range(0, rows, step):
        part = slice(first, min(first + step, rows))
        weight = memory[: part.stop - first]
        if isinstance(packed, PackedBitmap):
            unpack_rows(packed, part, weight)
        else:
            held.weight.unpack_rows(first, len(weight), weight.data_ptr(), threads())
        y[..., part] = linear(x, weight, None if bias is None else bias[part])
    return y


# Address and bytes of the dense weights that have been moved.
_moved: set[tuple[int, int]] = set()


def _to_huge_pages(tensor: Tensor) -> None:
    load(CPU).collapse_huge_pages(tensor.data_ptr(), tensor.nbytes)


class _Dense:
    """The same of a dense weight [R, C] in bf16 or fp16."""

    def __init__(self, weight: Tensor) -> None:
        self.kept = weight.detach().contiguous()
        place = self.kept.data_ptr(), self.kept.nbytes
        if self.kept.nbytes >= _HUGE_PAGE and weight.is_contiguous() and place not in _moved:
            _to_huge_pages(self.kept)
            _moved.add(place)
        self.rows, columns = weight.shape
        self.weight = load(CPU).SparseWeight(
            self.kept.data_ptr(), 0, 0, 0, self.rows, columns, _VALUES[weight.dtype]
        )


def shared_weight(weight: Tensor | Packed2to4 | PackedBitmap) -> _Prepared | _Dense:
    """What the kernels read of any weight; it must be kept as long as its `weight` is used."""
    return _Dense(weight) if isinstance(weight, Tensor) else _prepare(weight)


def linear_dense(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` [..., R] of x [..., C] on the CPU; W [R, C] in bf16 or fp16."""
    shared = _Dense(weight)
    return _linear(x, shared.weight, shared.rows, bias)


def _linear(
    x: Tensor, weight: Any, rows: int, bias: Tensor | None, rounds_x: bool = False
) -> Tensor:
    dtype, columns = x.dtype, x.shape[-1]
    x = x.contiguous()
    count = x.numel() // columns
    y = torch.empty(
        (*x.shape[:-1], rows), dtype=dtype if dtype == torch.bfloat16 else torch.float32
    )
    if bias is not None:
        bias = bias.float().contiguous()
    weight.linear(
        x.data_ptr(),
        DTYPES[dtype],
        rounds_x,
        y.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        count,
        1 if count * rows * columns < _PARALLEL else threads(),
    )
    return y if y.dtype == dtype else y.to(dtype)
