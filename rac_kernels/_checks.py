"""The checks that ops/ makes: each error says op, expected, got, shapes."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from rac_kernels.factor import HessianFactor
from rac_kernels.pattern import Pattern

if TYPE_CHECKING:
    from rac_kernels.capture import CaptureBuffer

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def refuse(op: str, expected: object, got: object) -> NoReturn:
    """Raise the ValueError every check raises."""
    raise ValueError(f"{op}: expected {expected}, got {got}")


def check_tensor(
    op: str, name: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...] | None = None
) -> None:
    """Refuse what is not a tensor with data, of one of ``dtypes`` if asked."""
    if not isinstance(tensor, Tensor):
        got = type(tensor).__name__
        if got == "PackedTriangle":  # its module imports this one
            got += "; pass what its unpack() returns"
        raise TypeError(f"{op}: expected a tensor for {name}, got {got}")
    if dtypes is not None and tensor.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{op}: expected {name} in {names}, got {tensor.dtype}")
    if tensor.is_meta:
        refuse(op, f"{name} with data", "a tensor on the meta device")


def check_integer(op: str, name: str, value: int, least: int | None = None) -> None:
    """Refuse what is not an integer, or below ``least``."""
    if not isinstance(value, Integral):
        kind = type(value).__name__
        raise TypeError(f"{op}: expected an integer for {name}, got {kind} {value!r}")
    if least is not None and value < least:
        refuse(op, f"{name} >= {least}", value)


def check_number(op: str, name: str, value: float) -> None:
    """Refuse what is not a real number."""
    if not isinstance(value, Real):
        kind = type(value).__name__
        raise TypeError(f"{op}: expected a number for {name}, got {kind} {value!r}")


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
    check_tensor(op, name, tensor, dtypes)
    if tensor.ndim != 2:
        refuse(op, f"{name} with 2 dimensions", list(tensor.shape))
    if square and tensor.shape[0] != tensor.shape[1]:
        refuse(op, f"a square {name}", list(tensor.shape))
    if shape is not None and tuple(tensor.shape) != shape:
        refuse(op, f"{name} {list(shape)}", list(tensor.shape))


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


def check_hessian_diagonal(op: str, weight: Tensor, diagonal: Tensor) -> None:
    """Refuse what is not the diagonal [C] of an H for ``weight`` [R, C]."""
    check_tensor(op, "hessian_diagonal", diagonal)
    if diagonal.shape != weight.shape[1:]:
        refuse(op, f"hessian_diagonal [{weight.shape[1]}]", list(diagonal.shape))
    check_same_device(op, weight=weight, hessian_diagonal=diagonal)
    if not bool((diagonal.isfinite() & (diagonal >= 0)).all()):
        refuse(op, "a finite hessian_diagonal >= 0", "NaN, Inf or a negative entry")


def check_hessian_accumulate(
    op: str, features: int, hessian: Tensor, x: Tensor, row_weight: Tensor | None
) -> None:
    """Refuse activations that do not fit H of ``features``, whose values are in ``hessian``."""
    if hessian.is_meta:
        refuse(op, "hessian with data", "a tensor on the meta device")
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: expected a tensor for x, got {type(x).__name__}")
    if x.dtype not in FLOATS:
        raise TypeError(f"{op}: expected x in bf16, fp16 or fp32, got {x.dtype}")
    if x.ndim == 0 or x.shape[-1] != features:
        refuse(op, f"x [..., {features}] for H {[features, features]}", list(x.shape))
    if features > 1 and x.numel() and x.stride(-1) != 1:
        refuse(op, "x with a unit last stride", f"strides {x.stride()} of {list(x.shape)}")
    check_same_device(op, hessian=hessian, x=x)
    if row_weight is not None:
        check_tensor(op, "row_weight", row_weight)
        if row_weight.shape != x.shape[:-1]:
            refuse(op, f"row_weight {list(x.shape[:-1])}", list(row_weight.shape))
        check_same_device(op, hessian=hessian, row_weight=row_weight)


def check_rows(op: str, name: str, x: Tensor) -> None:
    """Refuse what is not rows [..., D] of bf16, fp16 or fp32 with a unit last stride."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: expected a tensor for {name}, got {type(x).__name__}")
    if x.dtype not in FLOATS:
        raise TypeError(f"{op}: expected {name} in bf16, fp16 or fp32, got {x.dtype}")
    if x.ndim == 0 or x.shape[-1] == 0:
        refuse(op, f"{name} [..., D]", list(x.shape))
    _check_unit_stride(op, name, x)
    if x.is_meta:
        refuse(op, f"{name} with data", "a tensor on the meta device")


def _check_unit_stride(op: str, name: str, x: Tensor) -> None:
    if not x.is_contiguous() and x.stride(-1) != 1 and x.shape[-1] > 1:
        refuse(op, f"{name} with a unit last stride", f"strides {x.stride()} of {list(x.shape)}")


def check_like(op: str, name: str, tensor: Tensor, like: str, x: Tensor, shape: torch.Size) -> None:
    """Refuse a ``tensor`` not of ``shape``, or unlike ``x``, the argument called ``like``."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}: expected a tensor for {name}, got {type(tensor).__name__}")
    if tensor.dtype != x.dtype:
        raise TypeError(f"{op}: expected {name} in {x.dtype} as {like}, got {tensor.dtype}")
    if tensor.shape != shape:
        refuse(op, f"{name} {list(shape)} for {like} {list(x.shape)}", list(tensor.shape))
    _check_unit_stride(op, name, tensor)
    if tensor.device != x.device:
        check_same_device(op, **{like: x, name: tensor})


def check_capture(op: str, buffer: "CaptureBuffer", x: Tensor, active: Tensor | None) -> None:
    """Refuse rows x [..., D] that the buffer cannot hold, and a mask that does not fit them."""
    if x.dtype != buffer.dtype:
        raise TypeError(f"{op}: expected x in {buffer.dtype} as the buffer, got {x.dtype}")
    if x.shape[-1] != buffer.features:
        refuse(op, f"x [..., {buffer.features}] for this buffer", list(x.shape))
    if x.device != buffer.device:
        check_same_device(op, x=x, buffer=buffer.rows)
    if active is None:
        return
    if not isinstance(active, Tensor) or active.dtype != torch.bool:
        got = active.dtype if isinstance(active, Tensor) else type(active).__name__
        raise TypeError(f"{op}: expected active in bool, got {got}")
    rows = x.numel() // buffer.features
    if active.shape != (rows,) and active.shape != x.shape[:-1]:
        refuse(op, f"active [{rows}] for x {list(x.shape)}", list(active.shape))
    if active.device != x.device:
        check_same_device(op, x=x, active=active)


def check_factor_hessian(op: str, hessian: Tensor, damping: float, max_damping: float) -> None:
    """Refuse what cannot be a sum of x x^T, and damping out of range."""
    check_number(op, "damping", damping)
    check_number(op, "max_damping", max_damping)
    if not 0 <= damping <= max_damping < math.inf:
        refuse(op, "0 <= damping <= max_damping", f"damping={damping}, max_damping={max_damping}")
    check_hessian(op, hessian)


def check_hessian(op: str, hessian: Tensor) -> None:
    """Refuse what by its shape, dtype or diagonal cannot be a sum of x x^T."""
    check_matrix(op, "hessian", hessian, (torch.float32,), square=True)
    if hessian.shape[0] == 0:
        refuse(op, "a hessian with at least one column", list(hessian.shape))
    diagonal = hessian.diagonal()
    if not bool(diagonal.isfinite().all()):
        refuse(op, "a finite H", "NaN or Inf on its diagonal: the activations were not finite")
    if bool((diagonal < 0).any()):
        column = int((diagonal < 0).nonzero()[0])
        refuse(op, "sums of squares on H's diagonal", f"{float(diagonal[column])} at {column}")


def check_stack(op: str, weights: list[Tensor], masks: Sequence[Tensor] | None) -> None:
    """Refuse a list of weights that cannot be solved together, or masks that are not one each."""
    if not weights:
        refuse(op, "at least one weight", "an empty list")
    dtypes = {weight.dtype for weight in weights if isinstance(weight, Tensor)}
    if len(dtypes) > 1:
        refuse(op, "weights of one dtype", ", ".join(sorted(map(str, dtypes))))
    if masks is not None and (isinstance(masks, Tensor) or len(masks) != len(weights)):
        got = "a tensor" if isinstance(masks, Tensor) else len(masks)
        refuse(op, f"a list of {len(weights)} masks for as many weights", got)


def check_sparsegpt(
    op: str,
    weight: Tensor,
    factor: HessianFactor,
    pattern: Pattern | None,
    block_size: int,
    mask: Tensor | None,
) -> None:
    """Refuse a factor, pattern or mask that does not fit the weight."""
    check_matrix(op, "weight", weight, FLOATS)
    if not isinstance(factor, HessianFactor):
        got = type(factor).__name__
        raise TypeError(f"{op}: expected a HessianFactor from factor_hessian, got {got}")
    (rows, columns), upper, dead = weight.shape, factor.upper, factor.dead
    check_tensor(op, "factor.upper", upper, (torch.float32,))
    check_tensor(op, "factor.dead", dead, (torch.bool,))
    if tuple(upper.shape) != (columns, columns):
        expected = f"a factor [{columns}, {columns}] for weight {list(weight.shape)}"
        refuse(op, expected, list(upper.shape))
    if tuple(dead.shape) != (columns,):
        refuse(op, f"factor.dead [{columns}]", list(dead.shape))
    check_same_device(op, weight=weight, factor=upper, dead=dead)
    check_integer(op, "block_size", block_size, 1)
    if pattern is None and mask is None:
        refuse(op, "a pattern or a mask", "neither")
    if pattern is not None:
        check_pattern(op, pattern, columns, block_size=block_size)
    if mask is not None:
        check_matrix(op, "mask", mask, (torch.bool,), shape=(rows, columns))
        check_same_device(op, weight=weight, mask=mask)
    if weight.numel() and not all(bool(end.isfinite()) for end in weight.aminmax()):
        refuse(op, "a finite weight", f"NaN or Inf in weight {list(weight.shape)}")
