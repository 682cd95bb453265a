"""Which implementation runs: auto may choose, an explicit one never falls back."""

import functools
import logging

from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import refuse
from rac_kernels.pattern import Pattern

logger = logging.getLogger(__name__)

IMPLEMENTATIONS = ("auto", "reference", "triton", "native")
# Ranking takes m^2 compares a group: beyond this, selection is the better algorithm.
NATIVE_MAX_M = 128


def choose(op: str, impl: str, available: set[str], native: str | None = None) -> str:
    """Name the implementation to run; ``native`` says why native cannot, None when it can."""
    if impl not in IMPLEMENTATIONS:
        refuse(op, f"impl one of {', '.join(IMPLEMENTATIONS)}", repr(impl))
    if impl == "auto":
        return "native" if "native" in available and native is None else "reference"
    if impl not in available:
        names = ", ".join(sorted(available))
        raise ValueError(f"{op}: impl={impl!r} does not exist for this op, which has {names}")
    if impl == "native" and native is not None:
        raise ValueError(f"{op}: impl='native' cannot run: {native}")
    return impl


def native_block(tensor: Tensor) -> str | None:
    """None when the C++ block solve can take ``tensor``, else why not."""
    if tensor.device.type != "cpu":
        return f"it runs on the CPU, and the tensor is on {tensor.device}"
    return _missing("cpu")


def native_mask(scores: Tensor, pattern: Pattern) -> str | None:
    """None when a compiled n:m selection can take ``scores``, else why not."""
    if not pattern.structured:
        return f"it selects n:m masks, and the pattern is {pattern}"
    if pattern.m > NATIVE_MAX_M:
        return f"it takes m <= {NATIVE_MAX_M}, and the pattern is {pattern}"
    if scores.device.type not in ("cpu", "cuda"):
        return f"it runs on the CPU or a GPU, and the tensor is on {scores.device}"
    return _missing(scores.device.type)


@functools.cache
def _missing(device: str) -> str | None:
    """Why the compiled module for ``device`` is missing, logged the first time it is needed."""
    reason = _native.why_missing(device)
    if reason is not None and device == "cpu":
        logger.warning("slower, on torch alone: %s", reason)
    return reason
