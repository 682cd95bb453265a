"""2:4 packing in C++ and CUDA."""

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, CUDA, PARALLEL, load, threads
from rac_kernels.packed import ROWS, Packed2to4

_VALUES = {torch.bfloat16: 0, torch.float16: 1, torch.int8: 2, torch.float8_e4m3fn: 3}
_NONE = torch.iinfo(torch.int64).max
_VECTOR = 16  # bytes that a CUDA kernel loads at once


def pack_2to4(
    weight: Tensor,
    scale: Tensor | None,
    *,
    prune: bool = False,
    column_scale: Tensor | None = None,
) -> tuple[Packed2to4, tuple[int, int] | None]:
    """Pack ``weight`` [R, C], with ``prune`` the two highest of every four ``|w| * column_scale``.

    Also returns row and first column of the first group that is refused: of more than two non-zeros
    or, with ``prune``, with a NaN among its scores. What is packed is then worth nothing.
    """
    if not _rows_can_be_read(weight):
        weight = weight.contiguous()
    rows, columns = weight.shape
    size = weight.element_size()
    padded = -(-rows // ROWS[size]) * ROWS[size]
    values = weight.new_empty(padded, columns // 2)
    words = torch.int16 if size == 2 else torch.int32
    metadata = values.new_empty(padded, columns // (8 * words.itemsize), dtype=words)
    if column_scale is not None:
        column_scale = column_scale.contiguous()
    found = _run(
        "pack_2to4",
        weight,
        weight=weight.data_ptr(),
        stride_bytes=weight.stride(0) * size,
        rows=rows,
        columns=columns,
        padded=padded,
        values=values.data_ptr(),
        metadata=metadata.data_ptr(),
        scale=0 if column_scale is None else column_scale.data_ptr(),
        prune=prune,
    )
    refused = None if found is None else (found // columns, found % columns)
    return Packed2to4(values, metadata, rows, scale), refused


def unpack_2to4(packed: Packed2to4) -> tuple[Tensor, int | None]:
    """The dense weight [R, C], and the first row whose metadata is corrupted."""
    values, metadata = packed.values.contiguous(), packed.metadata.contiguous()
    weight = values.new_empty(packed.shape)
    found = _run(
        "unpack_2to4",
        values,
        values=values.data_ptr(),
        metadata=metadata.data_ptr(),
        rows=packed.rows,
        columns=packed.shape[1],
        padded=values.shape[0],
        weight=weight.data_ptr(),
    )
    return weight, found


def _rows_can_be_read(weight: Tensor) -> bool:
    """Whether a kernel can read the rows where they are, one a stride after the other."""
    if weight.stride(1) != 1:
        return False
    size = weight.element_size()
    return weight.is_cpu or not (weight.data_ptr() % _VECTOR or weight.stride(0) * size % _VECTOR)


def _run(name: str, on: Tensor, **arguments: int) -> int | None:
    """What the function ``name`` of the module for the device of ``on`` found, None: nothing.

    On a GPU that is read back once, after the kernel.
    """
    arguments["value"] = _VALUES[on.dtype]
    if on.is_cpu:
        count = 1 if on.numel() < PARALLEL else threads()
        found = getattr(load(CPU), name)(**arguments, threads=count)
        return None if found < 0 else found
    first = torch.full((), _NONE, dtype=torch.int64, device=on.device)
    with torch.cuda.device(on.device):
        stream = torch.cuda.current_stream().cuda_stream
        getattr(load(CUDA), name)(**arguments, first=first.data_ptr(), stream=stream)
    found = int(first)
    return None if found == _NONE else found
