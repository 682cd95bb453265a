"""Who may import whom: tests, benchmarks -> rac -> rac_kernels' public names -> its backends."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rac_kernels

ROOT = Path(__file__).parent.parent
BACKENDS = ("rac_kernels.reference", "rac_kernels._triton", "rac_kernels._native")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Every import of a file as (module, name or None), relative ones resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from ((module, alias.name) for alias in node.names)


def reaches(module: str, name: str | None, target: str) -> bool:
    """Whether `from module import name` brings in `target` or something inside it."""
    full = (module, f"{module}.{name}")
    return any(m == target or m.startswith(f"{target}.") for m in full)


def test_relative_and_absolute_imports_are_both_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    file = tmp_path / "a" / "b" / "c.py"
    file.write_text("from ..x import y\nfrom . import z\nimport os.path\ndef f():\n import rac\n")
    seen = list(imports(file))
    assert seen == [("a.x", "y"), ("a.b", "z"), ("os.path", None), ("rac", None)]


@pytest.mark.parametrize("path", modules("rac_kernels"), ids=lambda p: str(p.relative_to(ROOT)))
def test_kernels_know_nothing_of_the_product(path):
    for module, name in imports(path):
        for target in ("rac", "tests", "benchmarks", "transformers"):
            assert not reaches(module, name, target), f"{path} imports {module}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_never_import_each_other(backend):
    location = ROOT / backend.replace(".", "/")
    files = sorted(location.rglob("*.py")) if location.is_dir() else [location.with_suffix(".py")]
    for path in (p for p in files if p.exists()):
        for module, name in imports(path):
            for other in BACKENDS:
                if other != backend:
                    assert not reaches(module, name, other), f"{path} imports {module}.{name}"


@pytest.mark.parametrize("path", modules("rac"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_product_uses_public_kernel_names_only(path):
    for module, name in imports(path):
        assert not reaches(module, name, "tests") and not reaches(module, name, "benchmarks")
        if module == "rac_kernels":
            assert name is None or name in rac_kernels.__all__, f"{path} imports {name}"
        else:
            assert not module.startswith("rac_kernels."), f"{path} imports {module}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            public = node.value.id != "rac_kernels" or node.attr in rac_kernels.__all__
            assert public, f"{path} uses rac_kernels.{node.attr}"


def test_optional_libraries_are_imported_when_called():
    """At the top level of a module they would be needed by everybody."""
    optional = {"vllm", "llmcompressor", "compressed_tensors", "triton", "math_verify"}
    for path in [*modules("rac"), *modules("rac_kernels")]:
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not optional & {n.split(".")[0] for n in names} or "_triton" in path.parts


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_kernels_work_where_only_torch_is_installed():
    blocked = ("transformers", "triton", "numpy", "pyarrow", "safetensors", "pydantic", "datasets")
    blocked += ("tokenizers", "huggingface_hub", "yaml", "typer", "rich", "psutil", "rac")
    code = f"""
import sys, warnings
warnings.simplefilter("ignore")
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
import torch, rac_kernels
x = torch.randn(40, 8)
hessian = rac_kernels.hessian_accumulate_(torch.zeros(8, 8), x)
factor = rac_kernels.factor_hessian(hessian)
pattern = rac_kernels.Pattern.parse("2:4")
weight, mask, loss = rac_kernels.sparsegpt(torch.randn(4, 8), factor, pattern, impl="reference")
print(int(mask.sum()))
"""
    assert python(code) == "16"


def test_importing_the_product_is_light():
    heavy = ("torch", "transformers", "vllm", "triton", "datasets", "pyarrow", "matplotlib")
    code = f"import sys, rac; print([m for m in {heavy} if m in sys.modules]); rac.Recipe"
    assert python(code) == "[]"


def test_the_product_needs_no_gpu_and_no_vllm():
    code = """
import sys, rac
rac.prune, rac.Recipe, rac.UserError, rac.trace
import torch
print(torch.cuda.is_initialized(), "vllm" in sys.modules, "llmcompressor" in sys.modules)
"""
    assert python(code) == "False False False"
