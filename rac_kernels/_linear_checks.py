"""The checks that ops/ makes of linears and packed weights: kernels read where those point."""

from typing import TypeVar

import torch
from torch import Tensor

from rac_kernels._checks import check_integer, check_matrix, check_same_device, check_tensor, refuse
from rac_kernels.packed import COLUMNS, ROWS, TAIL, Packed2to4, PackedBitmap
from rac_kernels.reference.pack_2to4 import first_corrupted_row

HALVES = (torch.bfloat16, torch.float16)
PACKABLE = (*HALVES, torch.int8, torch.float8_e4m3fn)
MAKERS = {Packed2to4: "pack_2to4", PackedBitmap: "pack_bitmap"}

Packed = TypeVar("Packed", Packed2to4, PackedBitmap)


def check_kind(op: str, packed: Packed, kind: type[Packed]) -> None:
    """Refuse what is not a weight of ``kind``."""
    if not isinstance(packed, kind):
        expected = f"a {kind.__name__} from {MAKERS[kind]}"
        raise TypeError(f"{op}: expected {expected}, got {type(packed).__name__}")


def check_once(op: str, packed: Packed, kind: type[Packed]) -> None:
    """Refuse a weight that no packing of ``kind`` makes, its positions included.

    A product is made hundreds of times a token, so this is done at the first one and remembered
    with the weight. A capture into a CUDA graph cannot be waited for: there values are not read,
    and nothing is remembered.
    """
    check_kind(op, packed, kind)
    if packed._checked:
        return
    values = packed.values
    capturing = isinstance(values, Tensor) and values.is_cuda
    capturing = capturing and torch.cuda.is_current_stream_capturing()
    if kind is Packed2to4:
        check_parts_2to4(op, packed)
        if not capturing:
            _check_scale_values(op, packed.scale)
            _check_positions(op, packed)
    else:
        check_parts_bitmap(op, packed)
        if not capturing:
            check_bits(op, packed)
    if not capturing:
        object.__setattr__(packed, "_checked", True)


def check_bias(op: str, x: Tensor, shape: tuple[int, int], bias: Tensor | None) -> None:
    """Refuse what is not a bias [R] for W of ``shape`` [R, C], where x is."""
    if bias is None:
        return
    if not isinstance(bias, Tensor):
        raise TypeError(f"{op}: expected a tensor or None for bias, got {type(bias).__name__}")
    if bias.shape != shape[:1]:
        refuse(op, f"bias [{shape[0]}] for W {list(shape)}", list(bias.shape))
    if x.device != bias.device:  # naming the devices takes longer than a small product
        check_same_device(op, x=x, bias=bias)


def check_parts_2to4(op: str, packed: Packed2to4) -> None:
    """Refuse parts whose dtypes, shapes or devices do not fit each other."""
    check_matrix(op, "values", packed.values, PACKABLE)
    size, (padded, half) = packed.values.element_size(), packed.values.shape
    if padded % ROWS[size] or half == 0 or 2 * half % COLUMNS[size]:
        tiles = f"rows in {ROWS[size]}s and columns in {COLUMNS[size] // 2}s"
        refuse(op, f"values with {tiles}", list(packed.values.shape))
    check_integer(op, "rows", packed.rows)
    if not padded - ROWS[size] < packed.rows <= padded:
        refuse(op, f"rows that are padded to {padded}", packed.rows)
    words = torch.int16 if size == 2 else torch.int32
    shape = (padded, half // (4 * words.itemsize))
    check_matrix(op, "metadata", packed.metadata, (words,), shape=shape)
    check_same_device(op, values=packed.values, metadata=packed.metadata)
    if packed.scale is not None:
        _check_scale_parts(op, packed.scale, packed.rows, packed.values)


def check_scale(op: str, scale: Tensor, rows: int, values: Tensor) -> None:
    """Refuse what is not a scale, float32 [R] without NaN, for the rows of ``values``."""
    _check_scale_parts(op, scale, rows, values)
    _check_scale_values(op, scale)


def _check_scale_parts(op: str, scale: Tensor, rows: int, values: Tensor) -> None:
    check_tensor(op, "scale", scale)
    if scale.shape != (rows,) or scale.dtype != torch.float32:
        refuse(op, f"scale float32 [{rows}]", f"{scale.dtype} {list(scale.shape)}")
    check_same_device(op, values=values, scale=scale)


def _check_scale_values(op: str, scale: Tensor | None) -> None:
    if scale is not None and bool(scale.isnan().any()):
        refuse(op, "scale without NaN", f"NaN in row {int(scale.isnan().nonzero()[0])}")


def _check_positions(op: str, packed: Packed2to4) -> None:
    """Refuse metadata in which a nibble ``first | second << 2`` has not first < second.

    Of each nibble ``second + 4 - first - 1`` stays within it, and has bit 2 set where it is in
    order; all eight of 32 bits at once.
    """
    words = packed.metadata.contiguous().view(torch.int32)
    ordered = (words >> 2 & 0x33333333 | 0x44444444) - (words & 0x33333333) - 0x11111111
    if not bool((ordered & 0x44444444 == 0x44444444).all()):
        refuse_row(op, first_corrupted_row(packed))


def refuse_row(op: str, row: int) -> None:
    """Refuse 2:4 metadata that is corrupted from ``row`` on."""
    refuse(op, "two ascending positions in every group", f"corrupted metadata in row {row}")


def check_parts_bitmap(op: str, packed: PackedBitmap) -> None:
    """Refuse parts whose dtypes, shapes or devices do not fit each other."""
    check_integer(op, "columns", packed.columns)
    check_matrix(op, "bitmap", packed.bitmap, (torch.uint8,))
    rows, width = packed.bitmap.shape
    if packed.columns < 0 or width != -(-packed.columns // 8):
        expected = f"a bitmap [{rows}, {-(-packed.columns // 8)}] for {packed.columns} columns"
        refuse(op, expected, [rows, width])
    for name, part, dtypes in (
        ("values", packed.values, HALVES),
        ("offsets", packed.offsets, (torch.int64,)),
    ):
        check_tensor(op, name, part, dtypes)
        if part.ndim != 1:
            refuse(op, f"{name} with 1 dimension", list(part.shape))
    if len(packed.offsets) != rows + 1:
        refuse(op, f"offsets [{rows + 1}] for {rows} rows", list(packed.offsets.shape))
    parts = {"values": packed.values, "bitmap": packed.bitmap, "offsets": packed.offsets}
    check_same_device(op, **parts)


def check_bits(op: str, packed: PackedBitmap) -> None:
    """Refuse offsets that do not count the bits of each row, or values that are not as many."""
    bits, offsets = packed.bitmap, packed.offsets
    if packed.columns % 8 and bool((bits[:, -1] >> packed.columns % 8).any()):
        refuse(op, f"a bitmap without bits beyond column {packed.columns}", "some")
    bits = bits - (bits >> 1 & 0x55)  # the ones of every two bits, then of four, then of eight
    bits = (bits & 0x33) + (bits >> 2 & 0x33)
    counts = (bits + (bits >> 4) & 0x0F).sum(1, dtype=torch.int64)
    if int(offsets[0]) != 0:
        refuse(op, "offsets that begin at 0", int(offsets[0]))
    wrong = offsets.diff() != counts
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        expected = f"offsets {int(counts[row])} apart in row {row}, as its bitmap has bits"
        refuse(op, expected, int(offsets[row + 1] - offsets[row]))
    if int(offsets[-1]) + TAIL != len(packed.values):
        expected = f"values [{int(offsets[-1]) + TAIL}], {TAIL} more than the bitmap has bits"
        refuse(op, expected, list(packed.values.shape))
