"""Specialisations of the factor's kernels."""

from aot import Case

from rac_kernels._triton import tuning

MODULE = "rac_kernels._triton.factor_hessian:"


def compile_cases() -> list[Case]:
    """Each kernel with its tuning entries."""
    entries = [(k, n, c) for k, configs in tuning.FACTOR.items() for n, c in enumerate(configs)]
    cases = []
    for capability, number, c in entries:
        label = f"{number}" if number else ""
        shared = {"capability": capability, "indivisible": ("size",), "label": label}
        sizes = dict.fromkeys(("start", "size", "stride"), "i32")
        both = {"h_ptr": "*fp32", "inverse_ptr": "*fp32"}
        cases += [
            Case(
                MODULE + "diagonal_kernel",
                both | {"failed_ptr": "*fp64"} | sizes,
                {"BLOCK": c.block},
                num_warps=8,
                tensor_cores=False,
                **shared,
            ),
            Case(
                MODULE + "panel_kernel",
                both | sizes,
                {"BLOCK": c.block, "BLOCK_J": c.block_j},
                tensor_cores=True if c.block >= 64 else None,  # 32 rows are too few for wgmma
                **shared,
            ),
            Case(
                MODULE + "update_kernel",
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
