"""Linears with packed weights in C++."""

import weakref

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, load, threads
from rac_kernels.packed import Packed2to4, PackedBitmap

_VALUES = {torch.bfloat16: 0, torch.float16: 1, torch.int8: 2, torch.float8_e4m3fn: 3}
_LANES = 16  # what rows of x are padded to
# Multiply-adds from which a second thread pays for being woken.
_PARALLEL = 1 << 18
# What says where the values are, as the kernels read it; an entry goes with its weight.
_codes: weakref.WeakKeyDictionary[Packed2to4 | PackedBitmap, Tensor] = weakref.WeakKeyDictionary()


def codes_of(packed: Packed2to4 | PackedBitmap) -> Tensor:
    """The bitmap, or the metadata as uint8 [R' / 4, C / 32, 4, 4], made once for a weight.

    In CUTLASS's order a tile of 32 rows lies in C / 32 pieces, 4 R' bytes apart, each in another
    page of memory; here four rows stream beside their values, for 1/16 of the dense weight's bytes.
    The values are moved to huge pages: they are read at every call.
    """
    codes = _codes.get(packed)
    if codes is None:
        module = load(CPU)
        codes = packed.bitmap if isinstance(packed, PackedBitmap) else _codes_2to4(packed)
        for tensor in (packed.values, codes):
            module.collapse_huge_pages(tensor.data_ptr(), tensor.nbytes)
        _codes[packed] = codes
    return codes


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


def linear_2to4(x: Tensor, packed: Packed2to4, bias: Tensor | None, many: bool) -> Tensor:
    """``x W^T + bias`` [..., R] of x [..., C] on the CPU.

    ``many``: by the kernel that multiplies packed values alone, else by dot products.
    """
    return _linear(x, packed, None, packed.scale, bias, many)


def linear_bitmap(x: Tensor, packed: PackedBitmap, bias: Tensor | None, many: bool) -> Tensor:
    """``x W^T + bias`` [..., R] of x [..., C] on the CPU, as :func:`linear_2to4`."""
    return _linear(x, packed, packed.offsets, None, bias, many)


def _linear(
    x: Tensor,
    packed: Packed2to4 | PackedBitmap,
    offsets: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    many: bool,
) -> Tensor:
    rows, columns = packed.shape
    codes = codes_of(packed)
    flat = x.reshape(-1, columns).float()
    if columns % _LANES:
        flat = torch.nn.functional.pad(flat, (0, -columns % _LANES))
    flat = flat.contiguous()
    vectors = [None if t is None else t.float().contiguous() for t in (scale, bias)]
    where = [0 if t is None else t.data_ptr() for t in (offsets, *vectors)]

    def run(x32: Tensor, many: bool) -> Tensor:
        y = torch.empty(x32.shape[0], rows)
        small = x32.shape[0] * rows * columns < _PARALLEL
        load(CPU).linear_sparse(
            many,
            x32.data_ptr(),
            y.data_ptr(),
            packed.values.data_ptr(),
            codes.data_ptr(),
            *where,
            x32.shape[0],
            rows,
            columns,
            x32.shape[1],
            _VALUES[packed.dtype],
            1 if small else threads(),
        )
        return y

    y = run(flat, many)
    if many:
        finite = flat.sum(1).isfinite()
        if not bool(finite.all()):  # 0 * inf is not 0: zeros may not be left out
            y[~finite] = run(flat[~finite], False)
    return y.to(x.dtype).view(*x.shape[:-1], rows)
