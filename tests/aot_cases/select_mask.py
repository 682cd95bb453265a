"""Specialisations of the mask kernels."""

from aot import Case

from rac_kernels._triton.row_mask import row_blocks

MODULE = "rac_kernels._triton."


def compile_cases() -> list[Case]:
    """2:4, n:m in general, rows of every size, and what follows a selection."""
    cases = []
    for capability in (80, 90):
        groups = {"vectors": "i32", "row_vectors": "i32"}
        for label, dtype, fused, width, m, n in (
            ("2:4", "*bf16", True, 8, 4, 2),
            ("2:4fp32", "*fp32", False, 8, 4, 2),
            ("16:32", "*bf16", False, 32, 32, 16),
        ):
            block = {"WIDTH": width, "BLOCK_V": 2048 // width, "BLOCK_C": width}
            cases.append(
                _case(
                    "select_mask:groups_kernel",
                    label,
                    dtype,
                    fused,
                    groups,
                    block | {"N": n, "M": m},
                    capability,
                )
            )
        sizes = {"rows": "i32", "columns": "i32", "stride": "i32", "count": "i32"}
        for columns in (64, 5120, 18944, 27648):
            for fused in (False, True) if columns > 16384 and capability == 90 else (True,):
                tile = row_blocks(columns) | {"SHIFT": 0 if fused else 16}
                warps = tile.pop("num_warps")
                cases.append(
                    _case(
                        "row_mask:rows_kernel",
                        f"{tile['BLOCK_C']}+{tile['TAIL_C']}",
                        "*bf16",
                        fused,
                        sizes,
                        tile,
                        capability,
                        warps,
                    )
                )
        cases.append(
            _case(
                "select_mask:selected_kernel",
                "layer",
                "*bf16",
                False,
                {"starts_ptr": "*i32", "selection_ptr": "*i32"}
                | {"columns": "i32", "stride": "i32", "stride_mask": "i32", "tiles": "i32"},
                {"ROWS": 1, "BLOCK_C": 4096},
                capability,
                8,
            )
        )
    return cases


def _case(kernel, label, dtype, fused, more, constants, capability, num_warps=4) -> Case:
    """`fused`: Wanda's scores and the weight with zeros; else scores as they are."""
    signature = {"scores_ptr": dtype, "mask_ptr": "*i1"} | more
    constants = {"SCORE": "wanda" if fused else "value"} | constants
    if "selected" not in kernel:
        signature["nan_ptr"] = "*i32"
    for name, kind in (("scale_ptr", "*fp32"), ("pruned_ptr", dtype)):
        if fused:
            signature[name] = kind
        else:
            constants[name] = None
    return Case(
        MODULE + kernel,
        signature,
        constants,
        capability,
        num_warps=num_warps,
        tensor_cores=False,
        indivisible=("rows", "count", "tiles"),
        label=f"{label}{'fused' if fused else ''}",
    )
