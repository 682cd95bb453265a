"""SparseGPT: validate, choose an implementation, call it."""

from collections.abc import Sequence
from typing import overload

from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import check_sparsegpt, check_stack
from rac_kernels._choice import choose, native_cpu, triton_block
from rac_kernels.factor import HessianFactor
from rac_kernels.pattern import Pattern
from rac_kernels.reference import sparsegpt as reference_sparsegpt


@overload
def sparsegpt(
    weight: Tensor,
    factor: HessianFactor,
    pattern: Pattern | None,
    *,
    block_size: int = 128,
    compat: bool = False,
    mask: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]: ...


@overload
def sparsegpt(
    weight: Sequence[Tensor],
    factor: HessianFactor,
    pattern: Pattern | None,
    *,
    block_size: int = 128,
    compat: bool = False,
    mask: Sequence[Tensor] | None = None,
    impl: str = "auto",
) -> list[tuple[Tensor, Tensor, Tensor]]: ...


def sparsegpt(weight, factor, pattern, *, block_size=128, compat=False, mask=None, impl="auto"):
    """Prune ``weight`` with optimal brain surgeon updates, block by block.

    Args:
        weight: bf16, fp16 or fp32 [R, C] (out_features, in_features); not changed. Or a list of
            matrices [R_i, C] of one dtype whose inputs are the same (q, k and v; gate and up): they
            share the factor and its products, and each has its own threshold.
        factor: of the layer's Hessian [C, C], from :func:`factor_hessian`, whose damping differs
            from the published code's where columns are dead.
        pattern: unstructured prunes ``round(numel * s)`` of every [R, block_size] block, ties by
            lowest index; n:m prunes n of every m of a row, chosen on the updated weights.
            None: prune to ``mask``.
        block_size: columns per block.
        compat: unstructured as IST-DASLab's code: prune ``score <= sort(scores)[int(numel * s)]``.
        mask: bool [R, C], True = kept: with pattern None, prune to this mask. With a pattern, grow
            it: what it prunes stays pruned and counts towards the pattern, which chooses the rest,
            none where it already is exceeded. A list of them for a list of matrices.
        impl: "auto", "reference", "native" (the CPU, and auto's choice there), "triton" (a GPU, and
            auto's choice there).

    Returns:
        The pruned weight (dtype of ``weight``; arithmetic is float32), the mask bool [R, C]
        (True = kept), and the loss, a float64 scalar tensor: ``||D U||_F^2``, the sum of squared
        OBS errors, with D the change of the weights: the squared output error on H's tokens plus
        its damping. Weights of dead columns become 0 whatever the mask says. For a list of
        matrices a list of these, each as of the matrix alone (bit for bit but with "triton", whose
        results are views of stacked tensors).

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, C or block_size is not a
            multiple of m, weight is not finite, neither pattern nor mask.

    Source: SparseGPT, arXiv 2301.00774, algorithm 1.
    """
    op = "sparsegpt"
    stacked = isinstance(weight, (list, tuple))
    weights = list(weight) if stacked else [weight]
    masks = mask if stacked or mask is None else [mask]
    check_stack(op, weights, masks)
    for index, each in enumerate(weights):
        given = None if masks is None else masks[index]
        check_sparsegpt(op, each, factor, pattern, block_size, given)
    chosen = choose(
        op,
        impl,
        {"reference", "native", "triton"},
        native_cpu(weights[0]),
        triton=triton_block(weights, block_size),
        auto=("triton",) if weights[0].is_cuda else ("native",),
    )
    shared = (factor.upper, factor.dead, pattern)
    options = {"block_size": block_size, "compat": compat, "masks": masks}
    if chosen == "triton":
        from rac_kernels._triton import sparsegpt as triton_sparsegpt

        results = triton_sparsegpt.sparsegpt(weights, *shared, **options)
    elif chosen == "native":
        results = _native.sparsegpt(weights, *shared, **options)
    else:
        results = reference_sparsegpt.sparsegpt(weights, *shared, **options)
    return results if stacked else results[0]
