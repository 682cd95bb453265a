"""Specialisations of SparseGPT's launches."""

from aot import Case

from rac_kernels._triton import tuning

MODULE = "rac_kernels._triton."
SPLIT = {"high_ptr": "*fp32", "low_ptr": "*fp32"}
ARRAYS = (
    ("values_ptr", "*fp32"),
    ("inverse_ptr", "*fp32"),
    ("errors_ptr", "*fp32"),
    ("weight_ptr", "*bf16"),
    ("dead_ptr", "*i1"),
    ("keep_ptr", "*i1"),
    ("delta_ptr", "*fp32"),
    ("pruned_ptr", "*bf16"),
    ("losses_ptr", "*fp64"),
    ("starts_ptr", "*i32"),
)
# Rule, n, m, columns of a step and the power of two that holds them.
RULES = (
    ("selected", 0, 1, 32, 32),
    ("n:m", 2, 4, 32, 32),
    ("n:m", 32, 64, 64, 64),
    ("n:m", 3, 5, 30, 32),
    ("given", 0, 1, 32, 32),
)


def compile_cases() -> list[Case]:
    """The two products and the solve by every rule, bf16 weights."""
    entries = [(k, n, c) for k, configs in tuning.SOLVE.items() for n, c in enumerate(configs)]
    cases = []
    for capability, number, c in entries:
        shared = {"capability": capability, "num_warps": c.num_warps}
        shared["label"] = f"{number}" if number else ""
        carry = {
            "BLOCK_B": c.block_b,
            "BLOCK_I": c.carry_i,
            "BLOCK_K": c.block_k,
            "stride_ui": 1,  # the factor is the transpose of what was computed
        }
        sizes = dict.fromkeys(("start", "width", "stride_uj", "stride_carry"), "i32")
        pointers = {"upper_ptr": "*fp32", "inverse_ptr": "*fp32"} | SPLIT
        cases.append(Case(MODULE + "split_product:carry_kernel", pointers | sizes, carry, **shared))
        values = {
            "BLOCK_R": c.block_r,
            "BLOCK_B": c.block_b,
            "BLOCK_K": c.block_k,
            "SEGMENT": c.segment,
        }
        sizes = ("rows", "start", "width", "stride_weight", "stride_delta", "stride_carry")
        pointers = {"weight_ptr": "*bf16", "dead_ptr": "*i1", "delta_ptr": "*fp32"} | SPLIT
        signature = pointers | {"values_ptr": "*fp32"} | dict.fromkeys(sizes, "i32")
        cases.append(
            Case(
                MODULE + "split_product:values_kernel",
                signature,
                values,
                num_stages=c.num_stages,
                **shared,
            )
        )
        rules = RULES[: 2 if number else 5 if capability == 90 else 3]
        cases += [_solve_case(capability, c, shared["label"], *rule) for rule in rules]
        grown = RULES[:0] if number else RULES[: 4 if capability == 90 else 2]
        cases += [_solve_case(capability, c, "grow", *rule, grow=True) for rule in grown]
    return cases


def _solve_case(capability, config, label, rule, n, m, step, sub, grow=False) -> Case:
    constants = {
        "RULE": rule,
        "GROW": grow,
        "N": n,
        "M": m,
        "STEP": step,
        "SUB": sub,
        "BLOCK_R": config.solve_r * 32 // sub,
    }
    signature = dict(ARRAYS)
    if rule == "selected":
        signature["selection_ptr"] = "*i32"
    else:
        constants["selection_ptr"] = None
    sizes = ("start", "width", "stride_weight", "stride_out", "tiles")
    return Case(
        MODULE + "solve_block:solve_block_kernel",
        signature | dict.fromkeys(sizes, "i32"),
        constants,
        capability,
        num_warps=config.solve_warps,
        num_stages=1,
        indivisible=("tiles",),
        # Too few rows for wgmma: 32 of them, or beside 64 columns.
        tensor_cores=True if sub == 32 and config.solve_r >= 64 else None,
        label=f"{rule}{n}:{m}{label and '-' + label}",
    )
