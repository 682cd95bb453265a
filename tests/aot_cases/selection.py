"""Specialisations of the selection by counting digits."""

from aot import Case

MODULE = "rac_kernels._triton.selection:"
SEGMENTS = {"starts_ptr": "*i32", "counts_ptr": "*i32", "bins_ptr": "*i32"}
SIZES = {"columns": "i32", "stride": "i32", "tiles": "i32"}
# SparseGPT's block of 128 columns, and a long flat row of bf16 magnitudes.
SHAPES = {
    "obs": ({"values_ptr": "*fp32", "scale_ptr": "*fp32"}, {"SCORE": "obs"}, 32, 128),
    "abs": ({"values_ptr": "*bf16"}, {"SCORE": "abs", "scale_ptr": None}, 1, 4096),
}


def compile_cases() -> list[Case]:
    """Every kernel, the first and the last pass over the digits."""
    cases = []
    for capability in (80, 90):
        for label, (values, score, rows, block) in SHAPES.items():
            tile = {"ROWS": rows, "BLOCK_C": block} | score
            first = {"PASS": 0, "nan_ptr": None} if label == "obs" else {"PASS": 0}
            flag = {} if label == "obs" else {"nan_ptr": "*i32"}
            kernels = [
                ("count_digits_kernel", flag, first, "first"),
                ("count_digits_kernel", {}, {"PASS": 3, "nan_ptr": None}, "last"),
                ("count_ties_kernel", {"ties_ptr": "*i32"}, {}, ""),
                (
                    "find_last_kernel",
                    {"ties_ptr": "*i32", "selection_ptr": "*i32"},
                    {"BLOCK_T": 1024},
                    "",
                ),
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
                    label=f"{label}{which}",
                )
                for name, more, constants, which in kernels
            ]
    return cases
