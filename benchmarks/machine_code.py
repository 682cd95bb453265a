"""What ptxas made of the CUDA kernels, on a machine without a GPU.

    python -m benchmarks.machine_code [--out benchmarks/results]

For every kernel and architecture of the built module: registers, stack (spills live there) and the
instructions that matter; of the linears also the shared memory of the plan, the blocks that one
multiprocessor then holds, and the bytes of weights it keeps under way; of packing and masks, which
are bound by memory, the warps that registers leave room for. Nothing is timed.
"""

import argparse
import functools
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.common import report
from rac_kernels._native import CUDA, load

# Multiprocessors, bytes of shared memory a block and a multiprocessor may have, bytes/s of memory.
DEVICES = {
    "sm_80": ("A100", 108, 163 << 10, 164 << 10, 2.0e12),
    "sm_86": ("RTX 3090", 82, 99 << 10, 100 << 10, 0.94e12),
    "sm_89": ("L40S", 142, 99 << 10, 100 << 10, 0.86e12),
    "sm_90a": ("H100", 132, 227 << 10, 228 << 10, 3.35e12),
}
# Columns of a chunk, its largest size in vectors of 16 bytes, its bytes: bitmaps at 50%, whose 1024
# of 2048 values of a chunk are within 80, 3.5 standard deviations.
FORMATS = {
    "2to4": (128, 288, 4608),
    "2to4Fp8": (128, 160, 2560),
    "Bitmap": (64, 158, 16 * (20 + 128)),
}
LATENCY = 0.8e-6  # seconds from a load to its answer, of memory that is busy
REGISTERS = 65536  # of a multiprocessor
INSTRUCTIONS = {
    "sparse_mma": r"\bHMMA\.SP\.16832\.",
    "dense_mma": r"\bHMMA\.16816\.",
    "from_fp8": r"\bF2FP\.F16\.E4M3\.UNPACK_B",
    "population_counts": r"\bPOPC\b",
    "shared_2_bytes": r"\bLDS\.U16\b",
    "copies_of_16_bytes": r"\bLDGSTS\.E\.BYPASS\.LTC128B\.128\b",
    "ldmatrix": r"\bLDSM\.16\.M88\.4\b",
    "shared_16_bytes": r"\bLDS\.128\b",
    "stored_16_bytes": r"\bSTG\.E\S*\.128\b",
    "global_16_bytes": r"\bLDG\.E\S*\.128\b",
}
SECTION = re.compile(r"^arch = (\S+)$", re.MULTILINE)
FUNCTION = re.compile(r"Function\s*:?\s+(\S+?):?\s*$", re.MULTILINE)
STREAMED = re.compile(r"(pack_2to4|unpack_2to4|select_mask_group|select_mask_vector)(?:_kernel)?I")
KERNEL = re.compile(r"kernelINS_\d+Weight(2to4|2to4Fp8|Bitmap)E\d(BFloat16|Float16)((?:Li\d+E)+)E")


def cuobjdump() -> str | None:
    """The CUDA toolkit's cuobjdump, or the one that comes with triton."""
    found = shutil.which("cuobjdump")
    triton = importlib.util.find_spec("triton")
    if found or triton is None:
        return found
    path = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return str(path) if path.exists() else None


@functools.cache
def dump(option: str) -> str:
    """What cuobjdump says of the built module."""
    command = [cuobjdump(), option, load(CUDA).__file__]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def functions(text: str, names: re.Pattern = KERNEL) -> dict[tuple[str, str], str]:
    """(architecture, mangled name of a kernel) -> what is said of it; linears by default."""
    found = {}
    parts = SECTION.split(text)[1:]
    for arch, part in zip(parts[::2], parts[1::2], strict=True):
        pieces = FUNCTION.split(part)[1:]
        for name, body in zip(pieces[::2], pieces[1::2], strict=True):
            if names.search(name):
                found[arch, name] = body
    return found


def kernels() -> list[dict]:
    """A row for each kernel that a plan chooses, and architecture."""
    resources, code = functions(dump("-res-usage")), functions(dump("-sass"))
    rows = []
    for (arch, name), text in resources.items():
        kind, dtype, numbers = KERNEL.search(name).groups()
        tiles, warps = map(int, re.findall(r"\d+", numbers))
        used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
        row = {
            "kernel": "linear_" + kind.replace("Fp8", "_fp8").lower(),
            "arch": arch,
            "dtype": dtype.lower(),
            "tokens": 8 * tiles,
            "warps": warps,
            "registers": used["REG"],
            "stack": used["STACK"] + used["LOCAL"],
        }
        row |= {key: len(re.findall(p, code[arch, name])) for key, p in INSTRUCTIONS.items()}
        row |= _residence(row, *FORMATS[kind])
        rows.append(row)
    return rows


def streamed_kernels() -> list[dict]:
    """A row for each kernel of packing and masks, and architecture."""
    code, rows = functions(dump("-sass"), STREAMED), []
    for (arch, name), text in functions(dump("-res-usage"), STREAMED).items():
        used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
        registers = -(-used["REG"] // 8) * 8 * 32
        row = {
            "kernel": re.search(r"(?:un)?" + STREAMED.pattern, name)[0].removesuffix("I"),
            "name": re.sub(r"^_ZN\d+_GLOBAL__N_\w*?_cu_[0-9a-f]+\d\d", "", name),
            "arch": arch,
            "registers": used["REG"],
            "stack": used["STACK"] + used["LOCAL"],
            "warps_that_fit": min(48 if arch in ("sm_86", "sm_89") else 64, REGISTERS // registers),
        }
        for key in ("global_16_bytes", "stored_16_bytes"):
            row[key] = len(re.findall(INSTRUCTIONS[key], code[arch, name]))
        _, sms, _, _, bandwidth = DEVICES[arch]
        row["under_way"] = row["warps_that_fit"] * 32 * 16 * row["global_16_bytes"]
        row["under_way_wanted"] = round(bandwidth * LATENCY / sms)  # Little's law
        rows.append(row)
    return rows


def _residence(row: dict, chunk: int, slot: int, size: int) -> dict:
    """Shared memory, blocks a multiprocessor and bytes under way, of the device's plan."""
    gpu, sms, block, whole, bandwidth = DEVICES[row["arch"]]
    shape = {"tokens": row["tokens"], "rows": 18944, "columns": 3584, "chunk": chunk, "slot": slot}
    plan = load(CUDA).linear_plan(**shape, device=(sms, block, whole))
    if plan.warps != row["warps"]:
        return {"planned_for": None}
    registers = -(-row["registers"] // 8) * 8 * 32 * plan.warps
    fitting = min(whole // (plan.shared + 1024), REGISTERS // registers)
    blocks = min(fitting, -(-plan.blocks // sms))  # the plan may ask for fewer than fit
    under_way = blocks * (plan.stages - 1) * plan.warps * size
    return {
        "planned_for": gpu,
        "stages": plan.stages,
        "shared": plan.shared,
        "blocks_that_fit": fitting,
        "blocks_per_sm": blocks,
        "weight_bytes_under_way": under_way,
        # Little's law: what memory can be late before the pipeline runs dry.
        "latency_hidden_us": under_way * sms / bandwidth * 1e6,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder to append result rows to")
    options = parser.parse_args()
    for row in kernels():
        report(row, options.out, "machine_code")
    for row in streamed_kernels():
        report(row, options.out, "machine_code_streamed")


if __name__ == "__main__":
    main()
