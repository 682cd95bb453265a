"""Specialisations of the rank-k update: the tuning entries, and one of each kind of argument."""

from typing import Any

from aot import Case

from rac_kernels._triton.tuning import HESSIAN, HessianConfig

KERNEL = "rac_kernels._triton.hessian_accumulate:hessian_kernel"
POINTERS = {"h_ptr": "*fp32", "workspace_ptr": "*fp32", "arrived_ptr": "*i32"}
COUNTS = {"tokens": "i32", "split_tiles": "i32", "splits": "i32", "units": "i32"}
SIZES = {"features": "i32", "stride_xt": "i32", "stride_h": "i32"}
OPTIONAL = ("x_ptr", "a_desc", "b_desc", "weight_ptr", "rows_ptr")


def compile_cases() -> list[Case]:
    """Compile the defaults of every class of shape, and what else a GPU session would try."""
    wide, tma, pairs = HESSIAN[90, "wide"]
    return [
        case(90, "wide", wide, "bf16"),
        case(90, "wide-packed", wide, "bf16", packed=True),
        case(90, "wide-rows", wide, "bf16", rows_ptr="*i64"),
        case(90, "wide-tma", tma, "bf16"),
        case(90, "wide-pairs", pairs, "bf16", packed=True),
        case(90, "narrow-mask", HESSIAN[90, "narrow"][0], "fp16", weight_ptr="*u8"),
        case(90, "float32", HESSIAN[90, "float32"][0], "fp32"),
        case(90, "weighted", HESSIAN[90, "float32"][0], "bf16", weight_ptr="*fp32"),
        case(90, "odd", HESSIAN[90, "odd"][0], "bf16", aligned=False),
        case(90, "one-feature", HESSIAN[90, "odd"][0], "bf16", features=1, stride_xt=1, stride_h=1),
        case(80, "wide", HESSIAN[80, "wide"][0], "bf16"),
        case(80, "wide-packed", HESSIAN[80, "wide"][0], "bf16", packed=True),
        case(80, "float32", HESSIAN[80, "float32"][0], "fp32"),
        case(80, "odd-float32", HESSIAN[80, "odd"][0], "fp32", aligned=False),
    ]


def case(
    capability: int,
    label: str,
    config: HessianConfig,
    dtype: str,
    *,
    packed: bool = False,
    aligned: bool = True,
    **given: Any,
) -> Case:
    """One launch; `given` are types of optional pointers, and sizes that are 1."""
    signature = POINTERS | COUNTS | SIZES
    if config.tma:
        for name, width in (("a_desc", config.block_i), ("b_desc", config.block_j)):
            signature[name] = f"tensordesc<{dtype}[{config.block_t}, {width}]>"
    else:
        signature["x_ptr"] = f"*{dtype}"
    signature |= {name: kind for name, kind in given.items() if isinstance(kind, str)}
    ones = {name: value for name, value in given.items() if not isinstance(value, str)}
    constexprs = {name: None for name in OPTIONAL if name not in signature} | ones
    constexprs |= {
        "BLOCK_T": config.block_t,
        "BLOCK_I": config.block_i,
        "BLOCK_J": config.block_j,
        "GROUP": config.group,
        "SEGMENT": config.segment,
        "PRECISION": config.precision,
        "MASK_ONLY": given.get("weight_ptr") == "*u8",
        "PACKED": packed,
    }
    return Case(
        KERNEL,
        {name: kind for name, kind in signature.items() if name not in ones},
        constexprs,
        capability,
        config.num_warps,
        config.num_stages,
        indivisible=tuple(COUNTS) + (() if aligned else (*SIZES, "x_ptr", "h_ptr")),
        label=label,
    )
