"""What was measured to be best: GPU -> op -> class of shape -> fields of a configuration.

benchmarks/tune.py writes such a file. The one beside this module comes with the package; the
environment variable RAC_TUNED names another one in its place.
"""

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import torch

FILE = Path(__file__).with_name("tuned.json")
Configuration = TypeVar("Configuration")


@functools.cache
def table(path: str) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """What the file holds; nothing where there is none."""
    file = Path(path)
    return json.loads(file.read_text()) if file.is_file() else {}


def tuned(device: torch.device, op: str, kind: str, default: Configuration) -> Configuration:
    """``default`` with the fields that were measured for this GPU, op and class of shape.

    Raises:
        ValueError: the file has a field that the configuration has not.
    """
    if device.type != "cuda":
        return default
    path = os.environ.get("RAC_TUNED") or str(FILE)
    measured = table(path).get(torch.cuda.get_device_name(device), {})
    fields = measured.get(op, {}).get(kind, {})
    try:
        return dataclasses.replace(default, **fields)
    except TypeError as error:
        raise ValueError(f"{path}: {op}, {kind}: {error}; run benchmarks/tune.py again") from error
