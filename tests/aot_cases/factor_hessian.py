"""Specialisations of the factor's kernels."""

from aot import Case

from rac_kernels._triton import tuning
from rac_kernels._triton.factor_block import STRIP

MODULE = "rac_kernels._triton."


def compile_cases() -> list[Case]:
    """Each kernel with its tuning entries."""
    entries = [(k, n, c) for k, configs in tuning.FACTOR.items() for n, c in enumerate(configs)]
    cases = []
    for capability, number, c in entries:
        label = f"{number}" if number else ""
        pointers = dict.fromkeys(("h_ptr", "diagonal_ptr", "scratch_ptr"), "*fp32")
        pointers["failed_ptr"] = "*fp64"
        blocks = {"BLOCK": c.block, "BLOCK_K": c.block_k, "STRIP": STRIP, "PRECISION": c.precision}
        cases += [
            Case(
                MODULE + "factor_block:block_kernel",
                pointers | dict.fromkeys(("start", "size", "depth", "stride"), "i32"),
                blocks | {"BLOCK_J": block_j},
                capability,
                c.block_warps,
                c.num_stages,
                ("size", "depth"),
                label=f"{block_j}{label and '-' + label}",
            )
            for block_j in (c.block_j, 2 * c.block_j)
        ]
        cases += [
            Case(
                MODULE + "factor_hessian:update_kernel",
                {"h_ptr": "*fp32"}
                | dict.fromkeys(("first_tile", "end", "source", "depth", "stride"), "i32"),
                {"BLOCK_I": c.block_i, "BLOCK_K": c.block_k, "PRECISION": c.precision},
                capability,
                c.num_warps,
                c.num_stages,
                ("first_tile", "depth"),
                label=label,
            ),
        ]
    return cases
