"""Build csrc/: C++ wherever a compiler works, CUDA wherever nvcc is found, neither if neither.

A missing or broken compiler never fails the install: rac_kernels then runs on torch alone, and one
notice says so. Whether a GPU is present is not asked: the machine that builds is often not the one
that runs. Everything else about the package is in pyproject.toml.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CPU, CUDA = "rac_kernels._C_cpu", "rac_kernels._C_cuda"
# File names of csrc/cpu and csrc/cuda.
SOURCES = {
    CPU: sorted(path.name for path in (ROOT / "csrc/cpu").glob("*.cpp")),
    CUDA: sorted(path.name for path in (ROOT / "csrc/cuda").glob("*.c*") if path.suffix != ".cuh"),
}
# No -march=native: the instruction set is chosen at run time (csrc/cpu/isa.h), so a wheel runs on
# machines other than the one that built it. No -ffast-math and no contraction of a*b+c: the same
# answers on every machine. -fno-strict-aliasing: vectors are filled and emptied through pointers to
# their elements. -fno-math-errno, -fno-trapping-math change no value; they let loops be vectorised.
CXX_FLAGS = ["-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall"]
CXX_FLAGS += ["-ffp-contract=off", "-fno-strict-aliasing", "-fno-math-errno", "-fno-trapping-math"]
CXX_FLAGS += ["-Wno-psabi", "-Wno-ignored-attributes"]  # vectors never cross a function boundary
# A matrix product is only sums of products: fusing them doubles its speed and rounds once less.
PRODUCTS = ("decode_attention", "factor_hessian", "hessian_accumulate", "sparsegpt_product")
PRODUCTS += ("linear_avx2", "linear_avx512", "linear_baseline", "linear_dots", "linear_tiles")
# GCC 12 takes the undefined lanes of its own AVX-512 intrinsics for variables nobody set.
INTRINSICS = ("pack_2to4", "unpack_2to4", "linear_dots", "linear_tiles")
SOURCE_FLAGS = {f"{name}.cpp": ["-ffp-contract=fast"] for name in PRODUCTS}
for name in INTRINSICS:
    SOURCE_FLAGS.setdefault(f"{name}.cpp", []).extend(
        ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
    )
# Ampere, Ada, Hopper, and PTX of the last for what comes after. cudart inside: no CUDA needed to
# load the module, and it does not depend on which CUDA torch brought.
NVCC_FLAGS = ["-O3", "-std=c++17", "-Xcompiler=-fPIC,-fvisibility=hidden"]
CUDA_CODES = ("sm_80", "sm_86", "sm_89", "sm_90a")
CUDA_LINK_FLAGS = ["-cudart", "static"]


def find_nvcc() -> str | None:
    """nvcc of CUDA_HOME (or CUDA_PATH) if set, else the one on PATH."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if home and (Path(home) / "bin" / "nvcc").exists():
            return str(Path(home) / "bin" / "nvcc")
    return shutil.which("nvcc")


def cuda_targets(nvcc: str) -> list[str]:
    """-gencode flags for those of CUDA_CODES that this nvcc knows."""
    listed = subprocess.run(
        [nvcc, "--list-gpu-code"], check=True, capture_output=True, text=True
    ).stdout.split()
    # Suffixed codes such as sm_90a are not always listed; nvcc 12 and later have them.
    codes = [code for code in CUDA_CODES if code in listed or code.rstrip("a") in listed]
    flags = [f"-gencode=arch={code.replace('sm', 'compute')},code={code}" for code in codes]
    return [*flags, "-gencode=arch=compute_90,code=compute_90"]


def ninja_file(name: str, target: Path, nvcc: str | None) -> str:
    """The build.ninja that makes one extension module."""
    import pybind11

    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    cxx = shlex.split(os.environ.get("CXX", "c++"))
    if name == CPU:
        compile_flags = [*CXX_FLAGS, "-fopenmp"]
        link = [*cxx, "-shared", "-fopenmp"]
    else:
        compile_flags = CXX_FLAGS
        link = [nvcc, "-ccbin", cxx[0], "-shared", *CUDA_LINK_FLAGS]
    lines = [
        "ninja_required_version = 1.5",
        "rule cxx",
        f"  command = {quote([*cxx, '-MMD', '-MF', '$out.d', *compile_flags, *includes])}"
        " $flags -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {quote(link)} $in -o $out",
    ]
    if name == CUDA:
        command = [nvcc, "-ccbin", cxx[0], "-MD", "-MF", "$out.d", *NVCC_FLAGS]
        command += cuda_targets(nvcc)
        lines += ["rule nvcc", f"  command = {quote(command)} -c $in -o $out"]
        lines += ["  depfile = $out.d", "  deps = gcc"]
    folder = ROOT / "csrc" / name.rsplit("_", 1)[1]
    objects = []
    for source in SOURCES[name]:
        rule = "nvcc" if source.endswith(".cu") else "cxx"
        lines.append(f"build {source}.o: {rule} {escape(folder / source)}")
        lines.append(f"  flags = {' '.join(SOURCE_FLAGS.get(source, []))}")
        objects.append(f"{source}.o")
    lines.append(f"build {escape(target)}: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def quote(command: list[str]) -> str:
    """A shell command line; ninja's own variables stay as they are."""
    return " ".join(part if part.startswith("$") else shlex.quote(part) for part in command)


def escape(path: Path) -> str:
    """A path as ninja wants it in a build line."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


class BuildNative(build_ext):
    """Compile with ninja; what does not compile is left out with one notice."""

    def run(self) -> None:
        self.failures: list[str] = []
        super().run()
        if self.failures:
            print(
                "rac-prune: installed WITHOUT compiled kernels: "
                + "; ".join(self.failures)
                + ". Everything works on torch alone, only slower. To build them, install the "
                "compiler and run: pip install --no-build-isolation -e .",
                file=sys.stderr,
            )

    def build_extension(self, ext: Extension) -> None:
        nvcc = find_nvcc()
        if ext.name == CUDA and nvcc is None:
            return  # most machines have no CUDA compiler: nothing to notice
        build = Path(self.build_temp).resolve() / ext.name
        build.mkdir(parents=True, exist_ok=True)
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            (build / "build.ninja").write_text(ninja_file(ext.name, target, nvcc))
            done = subprocess.run(
                [*ninja_command(), "-C", str(build)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except (OSError, ImportError, subprocess.CalledProcessError) as error:
            self.failures.append(f"{ext.name}: {error}")
            return
        if done.returncode:
            compiler = nvcc if ext.name == CUDA else os.environ.get("CXX", "c++")
            print(done.stdout)  # pip shows it with -v
            self.failures.append(f"{ext.name} ({compiler}: {first_error(done.stdout)})")


def first_error(output: str) -> str:
    """The line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    named = [line for line in lines if "error" in line.lower() or "not found" in line]
    return [*named, *lines[-1:], "failed without a word"][0]


def ninja_command() -> list[str]:
    """The ninja of the Python package, which build isolation brings, else the one on PATH."""
    try:
        from ninja import BIN_DIR
    except ImportError:
        return ["ninja"]
    return [str(Path(BIN_DIR) / "ninja")]


def extension(name: str) -> Extension:
    """Declare an optional module, with its sources so that they travel in source distributions."""
    folder = f"csrc/{name.rsplit('_', 1)[1]}"
    paths = [path for kind in ("*.h", "*.cuh") for path in (ROOT / "csrc").rglob(kind)]
    headers = [str(path.relative_to(ROOT)) for path in paths]
    sources = [f"{folder}/{source}" for source in SOURCES[name]]
    return Extension(name, sources, depends=headers, optional=True)


setup(ext_modules=[extension(CPU), extension(CUDA)], cmdclass={"build_ext": BuildNative})
