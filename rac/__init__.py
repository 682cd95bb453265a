"""RAC: prune reasoning language models on their own chains of thought."""

from importlib import import_module
from typing import Any

from rac.packed.registration import register_when_imported

_EXPORTS = {
    "Recipe": "rac.recipe",
    "UserError": "rac.errors",
    "pack": "rac.packed.pack",
    "prune": "rac.run",
    "trace": "rac.run",
}

__all__ = ["Recipe", "UserError", "pack", "prune", "trace"]

register_when_imported()  # packed checkpoints load with plain from_pretrained from here on


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'rac' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
