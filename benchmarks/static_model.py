"""What ptxas made of every Triton kernel, beside what a model of its floor asks for. No GPU needed.

    python -m benchmarks.static_model [--part NAME] [--out benchmarks/results]

Cases and compiler are those of tests/aot.py. A kernel is bound by `arithmetic`, by `memory`, or by
the `latency` of steps that follow each other, and that says what its machine code must have:

- arithmetic: tensor core instructions; loads of 16 bytes or by the copy engine; and loads under way
  for long enough, `hidden us` = blocks an SM x (stages - 1) x a step's time on the tensor cores, to
  wait LATENCY for memory.
- memory: loads of 16 bytes; and `under way`, the bytes that all threads of an SM have asked for
  before the first answer, at least bandwidth x LATENCY / SMs (Little's law).
- all: nothing in local memory.

What is missing is in `misses`; EXPLAINED says of some cases why. Rates are the data sheets'.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, report

sys.path.insert(0, str(ROOT / "tests"))
import aot  # noqa: E402

LATENCY = 0.8e-6  # seconds from a load to its answer, of memory that is busy
REGISTERS, THREADS, BLOCKS = 65536, 2048, 32  # of a multiprocessor
RESERVED = 1024  # bytes of shared memory that each block takes beside its own


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU: multiprocessors, shared memory of one, bytes/s, flop/s by kind of operand."""

    name: str
    sms: int
    shared: int
    bandwidth: float
    flops: dict[str, float]


DEVICES = {
    80: Device("A100", 108, 164 << 10, 2.0e12, {"bf16": 312e12, "tf32": 156e12}),
    90: Device("H200", 132, 228 << 10, 4.8e12, {"bf16": 989e12, "tf32": 495e12}),
}


def hessian_step(case: aot.Case) -> tuple[float, str]:
    """Flops of a step of the rank-k update: six products of bf16 for each of float32."""
    c = case.constexprs
    wide = case.signature.get("x_ptr") == "*fp32" or case.signature.get("weight_ptr") == "*fp32"
    return 2 * c["BLOCK_I"] * c["BLOCK_J"] * c["BLOCK_T"] * (6 if wide else 1), "bf16"


def update_step(case: aot.Case) -> tuple[float, str]:
    """Flops of a step of the factor's update, all float32."""
    return 12 * case.constexprs["BLOCK_I"] ** 2 * case.constexprs["BLOCK_K"], "bf16"


def values_step(case: aot.Case) -> tuple[float, str]:
    """Flops of a step of D times the carry: three products of TF32."""
    c = case.constexprs
    return 6 * c["BLOCK_R"] * c["BLOCK_B"] * c["BLOCK_K"], "tf32"


def carry_step(case: aot.Case) -> tuple[float, str]:
    """Flops of a step of the carry: three products of TF32."""
    c = case.constexprs
    return 6 * c["BLOCK_B"] * c["BLOCK_I"] * c["BLOCK_K"], "tf32"


# Kernel -> what bounds it, and for arithmetic the flops and kind of operand of a step.
BOUNDS: dict[str, tuple[str, Callable[[aot.Case], tuple[float, str]] | None]] = {
    "hessian_kernel": ("arithmetic", hessian_step),
    "update_kernel": ("arithmetic", update_step),
    "values_kernel": ("arithmetic", values_step),
    "carry_kernel": ("arithmetic", carry_step),
    "block_kernel": ("latency", None),
    "solve_block_kernel": ("latency", None),
    "capture_kernel": ("memory", None),
    "rmsnorm_capture_kernel": ("memory", None),
    "swiglu_capture_kernel": ("memory", None),
    "quantize_fp8_rows_kernel": ("memory", None),
    "groups_kernel": ("memory", None),
    "rows_kernel": ("memory", None),
    "selected_kernel": ("memory", None),
    "count_digits_kernel": ("memory", None),
    "count_ties_kernel": ("memory", None),
    "find_last_kernel": ("latency", None),
    "statistics_kernel": ("memory", None),
    "nucleus_kernel": ("memory", None),
}
WIDE = ("copy_16", "load_16", "copy_engine")
BYTES = {"copy_16": 16, "load_16": 16, "copy_8": 8, "load_8": 8, "copy_4": 4, "load_4": 4}
# (kernel, start of a case) -> why what it misses stays so.
EXPLAINED: dict[tuple[str, str], str] = {
    ("hessian_kernel", "odd"): "rows that do not begin on 16 bytes: no model has them",
    ("hessian_kernel", "one-feature"): "D = 1",
    ("nucleus_kernel", ""): "a program a row, ids stored in order (see there): at 128 rows of bf16 "
    "a quarter of the bandwidth, 30 us of a decode step of 8 ms",
    ("groups_kernel", "16:32"): "32 compares a score, more than reading it takes",
}


def blocks_per_sm(case: aot.Case, result: aot.Compiled) -> int:
    """Programs that one multiprocessor holds at a time."""
    device, threads = DEVICES[case.capability], 32 * case.num_warps
    registers = -(-max(result.registers, 1) // 8) * 8 * threads
    shared = device.shared // (result.shared + RESERVED)
    return min(REGISTERS // registers, shared, THREADS // threads, BLOCKS)


def model(case: aot.Case, result: aot.Compiled) -> dict[str, Any]:
    """A row: what the kernel has, what its floor asks for, and what is missing of it."""
    name = case.kernel.split(":")[1]
    bound, step = BOUNDS[name]
    device, code = DEVICES[case.capability], result.instructions
    blocks = blocks_per_sm(case, result)
    under_way = blocks * 32 * case.num_warps * sum(code[k] * size for k, size in BYTES.items())
    row = {
        "kernel": name,
        "case": case.label,
        "arch": f"sm_{case.capability}",
        "device_model": device.name,
        "bound": bound,
        "registers": result.registers,
        "spills": result.spills,
        "local": code["local"],
        "shared": result.shared,
        "warps": case.num_warps,
        "blocks_per_sm": blocks,
        "tensor_core": code["tensor_core"],
        "wide_loads": sum(code[kind] for kind in WIDE),
        "narrow_loads": sum(count for kind, count in code.items() if kind in NARROW),
        "barriers": code["barriers"],
    }
    if bound == "memory":
        row["under_way"] = under_way
        row["under_way_wanted"] = round(device.bandwidth * LATENCY / device.sms)
    if step is not None:
        flops, kind = step(case)
        seconds = flops / (device.flops[kind] / device.sms)
        row["hidden_us"] = blocks * max(case.num_stages - 1, 0) * seconds * 1e6
    return row | {"misses": misses(row)}


NARROW = ("copy_8", "load_8", "copy_4", "load_4", "load_less")


def misses(row: dict[str, Any]) -> list[str]:
    """What a kernel lacks for its floor."""
    arithmetic = row["bound"] == "arithmetic"
    wanted = {
        "does not fit": row["blocks_per_sm"] >= 1,
        "local memory": row["local"] == 0 and row["spills"] == 0,
        "tensor cores": not arithmetic or row["tensor_core"] > 0,
        "16-byte loads": row["bound"] == "latency" or row["wide_loads"] > 0,
        "bytes under way": row.get("under_way", 1) >= row.get("under_way_wanted", 0),
        "latency hidden": row.get("hidden_us", LATENCY * 1e6) >= LATENCY * 1e6,
    }
    return [name for name, there in wanted.items() if not there]


def unexplained(row: dict[str, Any]) -> list[str]:
    """Of the misses, those without a reason to stay."""
    keys = (key for key in EXPLAINED if key[0] == row["kernel"] and row["case"].startswith(key[1]))
    return [] if any(keys) else row["misses"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", default="", help="of the names of the cases")
    parser.add_argument("--out", type=Path, help="folder to append result rows to")
    options = parser.parse_args()
    cases = {case.name: case for case in aot.all_cases(options.part)}
    for name, result in aot.compile_all(list(cases.values())).items():
        if result.error:
            sys.exit(f"{name}: {result.error}")
        report(model(cases[name], result), options.out, "static_model")


if __name__ == "__main__":
    main()
