"""What impl="auto" of the sparse linears takes: ranges of batch by device and packing.

On the CPU: two kernels timed beside each other at 1 to 256 tokens with AVX2 (16-bit values; 8-bit
ones follow the bitmap, not timed). A device without rows gets SAFE: on a GPU cuSPARSELt where it
takes the shape, else unpacking; nothing that was never timed there.
"""

import torch

# (device, packing, bytes of a value) -> ((tokens up to which, implementation), ...), None: all.
# On the CPU the implementation is always "native"; beside it stands which of its two kernels:
# "few" (dot products along rows, a weight decoded for up to 8 tokens) or "many" (only packed values
# are multiplied, tokens in the lanes).
CPU: dict[tuple[str, int], tuple[tuple[int | None, str], ...]] = {
    ("2:4", 2): ((None, "few"),),
    ("2:4", 1): ((31, "few"), (None, "many")),
    ("bitmap", 2): ((31, "few"), (None, "many")),
}
# Compute capability -> the same, of implementations. Empty until rows of a GPU are there.
GPU: dict[tuple[int, int], tuple[tuple[int | None, tuple[str, ...]], ...]] = {}
SAFE: tuple[tuple[int | None, tuple[str, ...]], ...] = ((None, ("cusparselt",)),)


def cpu_kernel(packing: str, value_bytes: int, tokens: int) -> str:
    """Name the kernel for ``tokens`` rows of x, see CPU."""
    return _at(CPU[packing, value_bytes], tokens)


def gpu_implementations(device: torch.device, tokens: int) -> tuple[str, ...]:
    """Names in the order in which impl="auto" tries them on a GPU, the reference after all."""
    return _at(GPU.get(torch.cuda.get_device_capability(device), SAFE), tokens)


def table() -> list[str]:
    """The choice in words, a line for a device and packing: for `rac info`."""
    lines = [
        f"cpu, {packing}, {8 * size}-bit values: {_words(ranges)}"
        for (packing, size), ranges in CPU.items()
    ]
    for (major, minor), ranges in GPU.items():
        lines.append(f"sm_{major}{minor}, 2:4: {_words(ranges)}")
    return [*lines, f"other GPUs, 2:4: {_words(SAFE)}, not measured"]


def _at(ranges: tuple[tuple[int | None, object], ...], tokens: int):
    return next(choice for last, choice in ranges if last is None or tokens <= last)


_KERNELS = {"few": "dot products along rows", "many": "packed values alone"}


def _words(ranges: tuple[tuple[int | None, object], ...]) -> str:
    parts = []
    for last, choice in ranges:
        name = _KERNELS[choice] if choice in _KERNELS else " or ".join((*choice, "reference"))
        parts.append(name if last is None else f"{name} up to {last} tokens")
    return ", ".join(parts)
