"""Specialisations of the draw from the nucleus."""

from aot import Case

from rac_kernels._triton.nucleus_sample import BLOCK_N, BLOCK_V, WAYS_N, WAYS_V

MODULE = "rac_kernels._triton.nucleus_sample:"
STATISTICS = {"maxima_ptr": "*fp32", "sums_ptr": "*fp32", "vocabulary": "i32", "stride_b": "i32"}
REST = {"uniform_ptr": "*fp32", "values_ptr": "*fp32", "ids_ptr": "*i32", "out_ptr": "*i64"}
REST |= {"parts": "i32", "capacity": "i32"}
REST |= {"scale": "fp32", "top_p": "fp32", "few": "fp32", "broad": "fp32"}


def compile_cases() -> list[Case]:
    """bf16 and fp32 logits; with and without a nucleus smaller than the vocabulary."""
    cases = []
    for capability in (80, 90):
        for dtype in ("*bf16", "*fp32"):
            cases.append(
                Case(
                    MODULE + "statistics_kernel",
                    {"logits_ptr": dtype, "scale": "fp32"} | STATISTICS,
                    {"BLOCK_V": BLOCK_V},
                    capability,
                    num_warps=8,
                    tensor_cores=False,
                    label=dtype[1:],
                )
            )
            cases += [_nucleus(dtype, truncate, capability) for truncate in (True, False)]
    return cases


def _nucleus(dtype: str, truncate: bool, capability: int) -> Case:
    tile = {"WAYS_V": WAYS_V, "WAYS_N": WAYS_N, "BLOCK_V": BLOCK_V, "BLOCK_N": BLOCK_N}
    return Case(
        MODULE + "nucleus_kernel",
        {"logits_ptr": dtype} | STATISTICS | REST,
        {"TRUNCATE": truncate, "stride_u": 1, "PARTS": 64} | tile,
        capability,
        num_warps=16,
        indivisible=("parts", "logits_ptr"),
        tensor_cores=False,
        label=f"{dtype[1:]}-{'nucleus' if truncate else 'all'}",
    )
