"""What impl="auto" of the sparse linears takes: ranges of batch by device and packing.

On the CPU that is "native" for every batch. A GPU without rows gets SAFE: cuSPARSELt where it takes
the shape, else unpacking; nothing that was never timed there.
"""

import torch

Ranges = tuple[tuple[int | None, tuple[str, ...]], ...]
# Packing -> compute capability -> ((tokens up to which, implementations), ...), None: all. Empty
# until rows of a GPU are there.
GPU: dict[str, dict[tuple[int, int], Ranges]] = {"2:4": {}, "2:4-fp8": {}}
SAFE: Ranges = ((None, ("cusparselt",)),)


def gpu_implementations(packing: str, device: torch.device, tokens: int) -> tuple[str, ...]:
    """Names in the order in which impl="auto" tries them on a GPU, the reference after all."""
    ranges = GPU[packing].get(torch.cuda.get_device_capability(device), SAFE)
    return next(names for last, names in ranges if last is None or tokens <= last)


def table() -> list[str]:
    """The choice in words, a line for a device and packing: for `rac info`."""
    lines = [
        "cpu, 2:4, 2:4-fp8, bitmap: native",
        "cpu, dense in 16 bits: native up to 8 tokens with AVX2, in bf16 up to 64 with AMX, beyond "
        "where the CPU has no products of 16 bits; else torch",
        "GPUs, bitmap: reference; dense: torch",
    ]
    for packing, devices in GPU.items():
        for (major, minor), ranges in devices.items():
            lines.append(f"sm_{major}{minor}, {packing}: {_words(ranges)}")
        lines.append(f"other GPUs, {packing}: {_words(SAFE)}, not measured")
    return lines


def _words(ranges: Ranges) -> str:
    parts = []
    for last, choice in ranges:
        name = " or ".join((*choice, "reference"))
        parts.append(name if last is None else f"{name} up to {last} tokens")
    return ", ".join(parts)
