"""The checks that ops.py is made of: each says op, expected, got, shapes."""

from typing import NoReturn

import torch
from torch import Tensor

from rac_kernels.pattern import Pattern

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def refuse(op: str, expected: object, got: object) -> NoReturn:
    """Raise the ValueError every check raises."""
    raise ValueError(f"{op}: expected {expected}, got {got}")


def check_matrix(
    op: str,
    name: str,
    tensor: Tensor,
    dtypes: tuple[torch.dtype, ...],
    *,
    square: bool = False,
    shape: tuple[int, int] | None = None,
) -> None:
    """Refuse what is not a dense matrix of one of ``dtypes``, square or of ``shape`` if asked."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}: expected a tensor for {name}, got {type(tensor).__name__}")
    if tensor.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{op}: expected {name} in {names}, got {tensor.dtype}")
    if tensor.ndim != 2:
        refuse(op, f"{name} with 2 dimensions", list(tensor.shape))
    if square and tensor.shape[0] != tensor.shape[1]:
        refuse(op, f"a square {name}", list(tensor.shape))
    if shape is not None and tuple(tensor.shape) != shape:
        refuse(op, f"{name} {list(shape)}", list(tensor.shape))
    if tensor.is_meta:
        refuse(op, f"{name} with data", "a tensor on the meta device")


def check_pattern(op: str, pattern: Pattern, columns: int, block_size: int | None = None) -> None:
    """Refuse an n:m that does not divide the columns, or the block."""
    if not isinstance(pattern, Pattern):
        raise TypeError(f"{op}: expected a Pattern, got {type(pattern).__name__} {pattern!r}")
    if not pattern.structured:
        return
    if columns % pattern.m:
        refuse(op, f"in_features that are a multiple of {pattern.m} for {pattern}", columns)
    if block_size is not None and block_size % pattern.m:
        refuse(op, f"a block_size that is a multiple of {pattern.m} for {pattern}", block_size)


def check_same_device(op: str, **tensors: Tensor) -> None:
    """Refuse tensors that live on different devices."""
    devices = {name: str(tensor.device) for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        refuse(op, "all tensors on one device", devices)
