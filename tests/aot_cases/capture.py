"""Specialisations of the capture and of the kernels that compute and capture."""

from aot import Case

from rac_kernels._triton.capture import BLOCK_B, FEW_ROWS, MANY_ROWS
from rac_kernels._triton.rmsnorm_capture import row_tile

POINTERS = {
    "capture": ("x_ptr",),
    "rmsnorm_capture": ("x_ptr", "weight_ptr", "y_ptr"),
    "swiglu_capture": ("gate_ptr", "up_ptr", "y_ptr"),
}
SIZES = {
    "capture": {"stride_xb": "i32"},
    "rmsnorm_capture": {"stride_xb": "i32", "eps": "fp32"},
    "swiglu_capture": {"stride_gb": "i32", "stride_ub": "i32"},
}
RING = {"rows_ptr": "*bf16", "state_ptr": "*i32", "active_ptr": "*u8"}


def case(
    op: str, block: int, num_warps: int, capability: int, label: str, without: tuple[str, ...] = ()
) -> Case:
    """One kernel in bf16, some pointers of the ring left out."""
    signature = {name: "*bf16" for name in POINTERS[op]} | RING | SIZES[op]
    signature |= {"batch": "i32", "features": "i32", "slots": "i32"}
    constexprs = {"BLOCK_D": block, "BLOCK_B": BLOCK_B} | dict.fromkeys(without)
    return Case(
        f"rac_kernels._triton.{op}:{op}_kernel",
        {name: kind for name, kind in signature.items() if name not in without},
        constexprs,
        capability,
        num_warps,
        indivisible=("state_ptr", "active_ptr", "batch"),
        tensor_cores=False,
        label=label,
    )


def compile_cases() -> list[Case]:
    """Column blocks of both sizes, short and long rows, and a norm that captures nothing."""
    cases = []
    for capability in (80, 90):
        for op, (block, warps) in (
            ("capture", FEW_ROWS),
            ("swiglu_capture", FEW_ROWS),
            ("swiglu_capture", MANY_ROWS),
        ):
            cases.append(case(op, block, warps, capability, f"{block}"))
        for features in (1536, 28672):
            tile = row_tile(features)
            block, warps = tile["BLOCK_D"], tile["num_warps"]
            cases.append(case("rmsnorm_capture", block, warps, capability, f"{block}"))
        cases.append(case("rmsnorm_capture", 2048, 4, capability, "alone", tuple(RING)))
        block, warps = FEW_ROWS
        cases.append(case("capture", block, warps, capability, "all", ("active_ptr",)))
    return cases
