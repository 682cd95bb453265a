"""Compile Triton kernels ahead of time, with no GPU, and say what ptxas made of them.

    python tests/aot.py [PART OF A CASE'S NAME] [--ptx FOLDER]

prints registers, spills, shared memory and tensor core instructions of every case; test_compile.py
asserts on them. A case is one specialisation of one kernel for one target; each kernel's cases are
in aot_cases/<op>.py, made from its tuning entries by a function `compile_cases() -> list[Case]`.
Compilation runs in a process of its own, because it needs TRITON_INTERPRET to be unset when the
kernel is decorated; one process takes many cases.
"""

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
# Bytes of shared memory that one program may have.
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}
# Instructions of the machine code, by what they do; loads by their bytes.
INSTRUCTIONS = {
    "tensor_core": r"\b(?:HGMMA|HMMA|IMMA|DMMA)\b",
    "copy_engine": r"\bUTMALDG\b",
    **{f"copy_{n}": rf"\bLDGSTS\.E\.\S*{n * 8}\b" for n in (16, 8)},
    "copy_4": r"\bLDGSTS\.E(?!\S*(?:64|128)\b)",
    **{f"load_{n}": rf"\bLDG\.E\S*\.{n * 8}\b" for n in (16, 8)},
    "load_4": r"\bLDG\.E(?!\S*\.(?:64|128|U8|S8|U16|S16)\b)",
    "load_less": r"\bLDG\.E\S*\.(?:U8|S8|U16|S16)\b",
    **{f"store_{n}": rf"\bSTG\.E\S*\.{n * 8}\b" for n in (16, 8)},
    "store_less": r"\bSTG\.E(?!\S*\.(?:64|128)\b)",
    "local": r"\b(?:LDL|STL)\b",
    "barriers": r"\bBAR\.|\bSYNCS\b|\bWARPGROUP\.DEPBAR|\bLDGDEPBAR\b",
}
FRAME = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"


@dataclasses.dataclass(frozen=True)
class Case:
    """One specialisation of a kernel.

    Attributes:
        kernel: "package.module:function" of a @triton.jit function.
        signature: argument -> "*bf16", "*fp32", "i64", "fp32", ...; constexprs left out.
        constexprs: argument -> value; an argument passed as None is a constexpr None, and an
            integer argument of 1 a constexpr 1, as in a launch.
        capability: 80 or 90.
        indivisible: arguments that are not multiples of 16; all other pointers and integers are.
        tensor_cores: whether mma.sync (sm_80) or wgmma (sm_90) must be there; None: either way.
        label: what tells this case from the kernel's others.
    """

    kernel: str
    signature: dict[str, str]
    constexprs: dict[str, Any]
    capability: int = 90
    num_warps: int = 4
    num_stages: int = 3
    indivisible: tuple[str, ...] = ()
    tensor_cores: bool | None = True
    label: str = ""

    @property
    def name(self) -> str:
        """Unique and readable: kernel, label, target."""
        return f"{self.kernel.split(':')[1]}-{self.label}-sm{self.capability}"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What became of a case; ``error`` is "" where it compiled."""

    registers: int = 0
    stack: int = 0  # bytes of local memory: arrays indexed at run time, and spills
    spills: int = 0  # bytes stored and loaded because registers ran out
    shared: int = 0  # bytes
    mma: bool = False  # mma.sync in the PTX
    wgmma: bool = False
    instructions: dict[str, int] = dataclasses.field(default_factory=dict)  # of the machine code
    error: str = ""


def all_cases(part: str = "") -> list[Case]:
    """Every case of aot_cases/ whose name contains `part`."""
    modules = sorted(path.stem for path in (TESTS / "aot_cases").glob("*.py"))
    cases = [c for m in modules for c in importlib.import_module(f"aot_cases.{m}").compile_cases()]
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), f"not unique: {sorted(names)}"
    # Configurations that differ in nothing a kernel sees share its first case.
    distinct = {repr(dataclasses.replace(case, label="")): case for case in reversed(cases)}
    kept = {case.name for case in distinct.values()}
    return [case for case in cases if part in case.name and case.name in kept]


def compile_all(
    cases: list[Case], ptx: Path | None = None, triton: str | None = None
) -> dict[str, Compiled]:
    """Compile in processes without TRITON_INTERPRET; name -> result.

    PTX goes to folder `ptx`; `triton` is a folder with another Triton than the one installed.
    """
    if ptx is not None:
        ptx.mkdir(parents=True, exist_ok=True)
    folder = str(ptx.resolve()) if ptx is not None else ""
    count = max(1, min(os.cpu_count() or 1, len(cases) // 4))
    with ThreadPoolExecutor(count) as pool:
        shares = [cases[n::count] for n in range(count)]
        done = pool.map(lambda share: _run_worker(share, folder, triton), shares)
        results = {name: result for part in done for name, result in part.items()}
    return {case.name: results[case.name] for case in cases}


def _run_worker(cases: list[Case], folder: str, triton: str | None) -> dict[str, Compiled]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if triton is not None:
        paths = [triton, *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    request = {"ptx": folder, "cases": [dataclasses.asdict(case) for case in cases]}
    done = subprocess.run(
        [sys.executable, __file__, "--worker"],
        input=json.dumps(request),
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the compiling process ended with {done.returncode}:\n{done.stderr}")
    results = json.loads(done.stdout.splitlines()[-1])
    return {case.name: Compiled(**r) for case, r in zip(cases, results, strict=True)}


def _worker() -> None:
    """Compile the cases on stdin, print their results as one line of JSON."""
    sys.path.insert(0, str(TESTS.parent))
    request = json.load(sys.stdin)
    results = []
    for case in (Case(**fields) for fields in request["cases"]):
        try:
            result = _compile(case, request["ptx"])
        except Exception as error:  # whatever the compiler raises is the result
            result = Compiled(error=f"{type(error).__name__}: {error}")
        results.append(dataclasses.asdict(result))
    print(json.dumps(results))


def _compile(case: Case, ptx_folder: str) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, function = case.kernel.split(":")
    kernel = getattr(importlib.import_module(module), function)
    given = set(case.signature) | set(case.constexprs)
    assert given == set(kernel.arg_names), f"arguments differ: {given ^ set(kernel.arg_names)}"
    signature = {name: case.signature.get(name, "constexpr") for name in kernel.arg_names}
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, (name, kind) in enumerate(signature.items())
        if kind.startswith(("*", "i", "u")) and name not in case.indivisible
    }
    # Compiled anew, with ptxas' own words: a kernel from the cache comes without them.
    triton.knobs.compilation.always_compile = triton.knobs.nvidia.dump_ptxas_log = True
    with contextlib.redirect_stdout(io.StringIO()) as log:
        compiled = triton.compile(
            ASTSource(kernel, signature, case.constexprs, attributes),
            target=GPUTarget("cuda", case.capability, 32),
            options={"num_warps": case.num_warps, "num_stages": case.num_stages},
        )
    ptx = compiled.asm["ptx"]
    sass = disassemble(compiled.asm["cubin"])
    if ptx_folder:
        for kind in ("ptx", "ttgir"):
            (Path(ptx_folder) / f"{case.name}.{kind}").write_text(compiled.asm[kind])
    registers = re.search(r"Used (\d+) registers", log.getvalue())[1]
    stack, *spills = re.search(FRAME, log.getvalue()).groups()
    return Compiled(
        registers=int(registers),
        stack=int(stack),
        spills=sum(map(int, spills)),
        shared=compiled.metadata.shared,
        mma=bool(re.search(r"\bmma\.sync", ptx)),
        wgmma="wgmma.mma_async" in ptx,
        instructions={name: len(re.findall(p, sass)) for name, p in INSTRUCTIONS.items()},
    )


def disassemble(cubin: bytes) -> str:
    """Machine code as text, by the disassembler that comes with triton."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, "-c", file.name], capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="", help="of the names of the cases to compile")
    parser.add_argument("--ptx", type=Path, help="folder to write PTX and TTGIR into")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return _worker()
    print(f"{'regs':>5} {'stack':>6} {'spills':>6} {'shared':>7} {'cores':>6}  case")
    for name, result in compile_all(all_cases(options.part), options.ptx).items():
        cores = "wgmma" if result.wgmma else "mma" if result.mma else "-"
        row = f"{result.registers:5} {result.stack:6} {result.spills:6} {result.shared:7}"
        print(f"{row} {cores:>6}  {name}  {result.error}")


if __name__ == "__main__":
    main()
