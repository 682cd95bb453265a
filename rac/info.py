"""What `rac info` prints: versions, devices, usable kernels."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from rac_kernels import linear_status, native_status

PACKAGES = ("rac-prune", "torch", "triton", "transformers", "safetensors", "datasets")


def describe() -> dict[str, str]:
    """Name -> value, in the order in which to print them."""
    rows = {name: _version(name) for name in PACKAGES}
    rows["python"] = platform.python_version()
    rows["cpu"] = f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 1e9
            rows[f"cuda:{index}"] = f"{properties.name}, {memory:.0f} GB"
    else:
        rows["gpu"] = "none"
    rows |= {f"kernels {name}": status for name, status in native_status().items()}
    return rows | {f"linear {name}": status for name, status in linear_status().items()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
