"""What a packed checkpoint must hold, and whether its files do: shapes, dtypes, checksums, places.

A kernel reads where metadata, bitmap and offsets point, so files that are not what `rac pack` wrote
are refused before anything is loaded.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Sequence
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
PACKED = re.compile(r"\.weight_(values|metadata|bitmap|offsets|scale)$")
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
        ValueError: a file is not safetensors, its header says nothing sound of a tensor, or it ends
            before a tensor does (names it).
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
                try:
                    start, end = (8 + length + offset for offset in entry["data_offsets"])
                    dtype, shape = entry["dtype"], tuple(map(int, entry["shape"]))
                    sound = 8 + length <= start <= end
                except (KeyError, TypeError, ValueError):
                    sound = False
                if not sound:
                    raise ValueError(f"{file}: damaged header of the tensor {name}; copy it again")
                if end > size:
                    raise ValueError(f"{file} ends inside the tensor {name}; copy it again")
                found[name] = Stored(file, dtype, shape, start, end - start)
    return found


def check_entries(linears: dict[str, dict[str, Any]]) -> None:
    """Refuse what config.json says of packed linears where it lacks something.

    Raises:
        ValueError: names the linear, and what its entry lacks.
    """
    again = "copy config.json again, or pack the model again"
    if not isinstance(linears, dict):
        raise ValueError(f"config.json names no packed linears; {again}")
    for name, entry in linears.items():
        for key, kind in (("format", str), ("dtype", str), ("shape", list), ("sha256", dict)):
            if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
                raise ValueError(f"config.json has no {key} of the packed linear {name}; {again}")
        shape = entry["shape"]
        if len(shape) != 2 or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError(f"config.json: expected shape [R, C] of {name}, got {shape}; {again}")
        for part in expected_parts(entry):
            if not isinstance(entry["sha256"].get(part), str):
                raise ValueError(f"config.json has no sha256 of {name}.weight_{part}; {again}")


def expected_parts(entry: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each part of a packed linear; the count of a bitmap's values is -1.

    Raises:
        ValueError: a format or dtype that this version does not know.
    """
    kind, dtype, (rows, columns) = entry["format"], entry["dtype"], entry["shape"]
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r} of packed values; it is from a newer rac")
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
        linears: name -> {"format", "dtype", "shape", "sha256": {part: hex}} as in config.json,
            after `check_entries`.

    Raises:
        ValueError: names the tensor that is missing, belongs to no linear, has another shape, dtype
            or checksum, or holds positions that no packing makes.
    """
    parts = [
        (f"{name}.weight_{part}", want, entry["sha256"][part])
        for name, entry in linears.items()
        for part, want in expected_parts(entry).items()
    ]
    unclaimed = {name for name in tensors if PACKED.search(name)} - {part[0] for part in parts}
    if unclaimed:  # the linear would be left as it was initialized
        raise ValueError(
            f"{min(unclaimed)} belongs to no packed linear of config.json; copy that file again"
        )
    for tensor, (dtype, shape), _ in parts:
        _check_header(tensor, tensors.get(tensor), dtype, shape)
    check_sums(tensors, {tensor: digest for tensor, _, digest in parts})
    for name, entry in linears.items():
        _check_positions(name, entry, tensors)


def check_sums(tensors: dict[str, Stored], sums: dict[str, str]) -> None:
    """Refuse tensors that are missing, or whose checksum is not that in `sums`, by name.

    Raises:
        ValueError: names the first of them.
    """
    missing = sums.keys() - tensors.keys()
    if missing:
        raise ValueError(f"the tensor {min(missing)} is missing; copy the checkpoint again")
    for (name, digest), found in zip(sums.items(), sums_of(tensors, sums), strict=True):
        if found != digest:
            raise ValueError(f"{name} is damaged: its checksum is not that of config.json")


def sums_of(tensors: dict[str, Stored], names: Iterable[str]) -> list[str]:
    """The checksum of each of the tensors in `names`."""
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        return list(pool.map(lambda name: sha256(tensors[name].read()), names))


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
