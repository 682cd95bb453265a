"""Specialisations of the rounding of rows to fp8."""

from aot import Case

from rac_kernels._triton.quantize_fp8_rows import MAX_BLOCK
from rac_kernels._triton.rmsnorm_capture import row_tile


def compile_cases() -> list[Case]:
    """Short and long rows, and scales that are rounded."""
    return [
        Case(
            "rac_kernels._triton.quantize_fp8_rows:quantize_fp8_rows_kernel",
            {"x_ptr": "*bf16", "values_ptr": "*u8", "scale_ptr": "*fp32"}
            | {"stride_xr": "i32", "columns": "i32"},
            {"BFLOAT16_SCALE": rounds, "BLOCK_C": tile["BLOCK_D"]},
            capability,
            tile["num_warps"],
            tensor_cores=False,
            label=f"{columns}-{'bf16' if rounds else 'fp32'}",
        )
        for capability in (80, 90)
        for columns, rounds in ((1536, False), (28672, False), (1536, True))
        for tile in (row_tile(min(columns, MAX_BLOCK)),)
    ]
