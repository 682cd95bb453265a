"""Specialisations of the selection by counting digits."""

from aot import Case

MODULE = "rac_kernels._triton.selection:"
SEGMENTS = {"starts_ptr": "*i32", "counts_ptr": "*i32", "bins_ptr": "*i32"}
SIZES = {"columns": "i32", "stride": "i32", "stride_keep": "i32", "tiles": "i32"}
# SparseGPT's block of 128 columns, and a long flat row of bf16 magnitudes.
SHAPES = {
    "obs": ({"values_ptr": "*fp32", "scale_ptr": "*fp32"}, {"SCORE": "obs"}, 32, 128),
    "abs": ({"values_ptr": "*bf16"}, {"SCORE": "abs", "scale_ptr": None}, 1, 4096),
}

FIND = {"BLOCK_T": 1024}


def compile_cases() -> list[Case]:
    """Every kernel, the first and the last pass over the digits."""
    cases = []
    for capability, label, grow in (
        (90, "obs", False),
        (80, "obs", False),
        (90, "obs", True),
        (80, "obs", True),
        (90, "abs", False),
    ):
        values, score, rows, block = SHAPES[label]
        values = values | ({"keep_ptr": "*i1"} if grow else {})
        tile = {"ROWS": rows, "BLOCK_C": block} | score | ({} if grow else {"keep_ptr": None})
        kernels = [
            ("count_digits_kernel", {}, {"PASS": 3, "nan_ptr": None}, "last"),
            ("count_digits_kernel", {"nan_ptr": "*i32"}, {"PASS": 0}, "first"),
            ("count_ties_kernel", {"ties_ptr": "*i32"}, {}, ""),
            ("find_last_kernel", {"ties_ptr": "*i32", "selection_ptr": "*i32"}, FIND, ""),
        ]
        cases += [
            Case(
                MODULE + name,
                values | SEGMENTS | more | SIZES,
                tile | constants,
                capability,
                num_warps=8,
                tensor_cores=False,
                indivisible=("tiles",),
                label=f"{label}{which}{'-grow' if grow else ''}",
            )
            for name, more, constants, which in kernels[: 2 if label == "abs" else 4]
        ]
    return cases
