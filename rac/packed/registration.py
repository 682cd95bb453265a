"""Packed checkpoints load with plain `from_pretrained` once `rac` has been imported.

transformers' registry of quantizers is a module that takes seconds to import, and `import rac` must
not. So where it is not there yet, a finder waits for it: transformers imports it before it loads
any model, and the packed format is entered right after.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from rac.files import read_json

REGISTRY = "transformers.quantizers.auto"
QUANT_METHOD = "rac_packed"
VERSION = 1  # of the format


def register_when_imported() -> None:
    """Enter the packed format into transformers' registry, now or when that is imported."""
    if REGISTRY in sys.modules:
        _register(sys.modules[REGISTRY])
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


def is_packed(folder: Path) -> bool:
    """Whether the model in `folder` is packed."""
    config = read_json(folder / "config.json")
    return (config.get("quantization_config") or {}).get("quant_method") == QUANT_METHOD


def _register(registry: ModuleType) -> None:
    if QUANT_METHOD in registry.AUTO_QUANTIZER_MAPPING:
        return
    from rac.packed.quantizer import PackedConfig, PackedQuantizer

    registry.register_quantization_config(QUANT_METHOD)(PackedConfig)
    registry.register_quantizer(QUANT_METHOD)(PackedQuantizer)


class _Waiting(MetaPathFinder):
    """Finds one module as everybody else would, and registers when it has been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register(module)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
