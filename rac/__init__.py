"""RAC: prune reasoning language models on their own chains of thought."""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "Recipe": "rac.recipe",
    "UserError": "rac.errors",
    "prune": "rac.run",
    "trace": "rac.run",
}

__all__ = ["Recipe", "UserError", "prune", "trace"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'rac' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
