"""What a packed checkpoint must hold, and whether its files do: shapes, dtypes, checksums, places.

A kernel reads where metadata, bitmap and offsets point, so files that are not what `rac pack` wrote
are refused before anything is loaded.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rac.packed.linears import TAIL

DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U8": torch.uint8,
}
ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in a safetensors file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def read(self) -> np.ndarray:
        """Its bytes, mapped, not copied."""
        if self.size == 0:
            return np.empty(0, np.uint8)
        return np.memmap(self.file, np.uint8, "r", self.start, (self.size,))


def stored_tensors(files: Sequence[str | Path]) -> dict[str, Stored]:
    """Every tensor of safetensors files, by name.

    Raises:
        ValueError: a file is not safetensors, or ends before a tensor does (names it).
    """
    found = {}
    for file in map(Path, files):
        size = file.stat().st_size
        with file.open("rb") as opened:
            try:
                (length,) = struct.unpack("<Q", opened.read(8))
                header = json.loads(opened.read(length)) if length < size else None
            except (struct.error, ValueError):
                header = None
        if not isinstance(header, dict):
            raise ValueError(f"{file} has no complete safetensors header; copy it again")
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = (8 + length + offset for offset in entry["data_offsets"])
                if end > size:
                    raise ValueError(f"{file} ends inside the tensor {name}; copy it again")
                shape = tuple(entry["shape"])
                found[name] = Stored(file, entry["dtype"], shape, start, end - start)
    return found


def expected_parts(entry: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each part of a packed linear; the count of a bitmap's values is -1.

    Raises:
        ValueError: a format that this version does not know.
    """
    kind, dtype, (rows, columns) = entry["format"], entry["dtype"], entry["shape"]
    if kind == "2:4":
        padded = -(-rows // 32) * 32
        metadata = ("I16", (padded, columns // 16))
        return {"values": (dtype, (padded, columns // 2)), "metadata": metadata}
    if kind == "2:4-fp8":
        padded = -(-rows // 16) * 16
        metadata = ("I32", (padded, columns // 32))
        values = ("F8_E4M3", (padded, columns // 2))
        return {"values": values, "metadata": metadata, "scale": ("F32", (rows,))}
    if kind == "bitmap":
        bitmap = ("U8", (rows, -(-columns // 8)))
        return {"values": (dtype, (-1,)), "bitmap": bitmap, "offsets": ("I64", (rows + 1,))}
    raise ValueError(f"unknown packed format {kind!r}; it is from a newer rac")


def check_linears(tensors: dict[str, Stored], linears: dict[str, dict[str, Any]]) -> None:
    """Refuse packed linears whose tensors are not what was written.

    Args:
        tensors: from `stored_tensors`.
        linears: name -> {"format", "dtype", "shape", "sha256": {part: hex}} as in config.json.

    Raises:
        ValueError: names the tensor that is missing, has another shape, dtype or checksum, or holds
            positions that no packing makes.
    """
    parts = [
        (f"{name}.weight_{part}", want, entry["sha256"].get(part))
        for name, entry in linears.items()
        for part, want in expected_parts(entry).items()
    ]
    for tensor, (dtype, shape), _ in parts:
        _check_header(tensor, tensors.get(tensor), dtype, shape)
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        digests = pool.map(lambda part: sha256(tensors[part[0]].read()), parts)
        for (tensor, _, digest), found in zip(parts, digests, strict=True):
            if found != digest:
                raise ValueError(f"{tensor} is damaged: its checksum is not that of config.json")
    for name, entry in linears.items():
        _check_positions(name, entry, tensors)


def _check_header(name: str, found: Stored | None, dtype: str, shape: tuple[int, ...]) -> None:
    if found is None:
        raise ValueError(f"the tensor {name} is missing; pack the model again")
    if found.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype}, got {found.dtype}; pack the model again")
    sizes = zip(shape, found.shape, strict=False)
    if len(shape) != len(found.shape) or any(a not in (-1, b) for a, b in sizes):
        raise ValueError(
            f"{name}: expected shape {list(shape)}, got {list(found.shape)}; pack the model again"
        )
    if found.size != prod(found.shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{name} has {found.size} bytes, not those of {list(found.shape)}")


def sha256(data: Any) -> str:
    """The checksum of a buffer, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _check_positions(name: str, entry: dict[str, Any], tensors: dict[str, Stored]) -> None:
    if entry["format"] == "bitmap":
        _check_bitmap(name, entry["shape"], tensors)
    elif not ordered_positions(tensors[f"{name}.weight_metadata"].read()):
        raise ValueError(
            f"{name}.weight_metadata holds positions that are not two ascending ones of four"
        )


def ordered_positions(metadata: np.ndarray) -> bool:
    """Whether each nibble `first | second << 2` of 2:4 metadata (uint8 bytes) has first < second.

    `(second + 4) - first - 1` of each nibble stays within it, and has bit 2 set where the nibble is
    in order.
    """
    words = metadata.view(np.uint32)
    mask, ones, fours = (np.uint32(int(8 * digit, 16)) for digit in "314")
    ordered = ((words >> 2 & mask) | fours) - (words & mask) - ones
    return bool((ordered & fours == fours).all())


def _check_bitmap(name: str, shape: Sequence[int], tensors: dict[str, Stored]) -> None:
    rows, columns = shape
    bitmap = tensors[f"{name}.weight_bitmap"].read().reshape(rows, -1)
    offsets = tensors[f"{name}.weight_offsets"].read().view(np.int64)
    (count,) = tensors[f"{name}.weight_values"].shape
    if offsets[0] != 0 or not np.array_equal(np.diff(offsets), ONES[bitmap].sum(1, dtype=np.int64)):
        raise ValueError(f"{name}.weight_offsets do not count the bits of the rows of its bitmap")
    if offsets[-1] + TAIL != count:
        raise ValueError(
            f"{name}.weight_values: expected {offsets[-1] + TAIL} of them, got {count}"
        )
    if columns % 8 and (bitmap[:, -1] >> columns % 8).any():
        raise ValueError(f"{name}.weight_bitmap has bits beyond column {columns}")
