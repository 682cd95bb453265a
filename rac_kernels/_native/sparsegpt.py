"""SparseGPT in C++."""

import torch
from torch import Tensor

from rac_kernels._native.loading import CPU, DTYPES, load, threads
from rac_kernels.pattern import Pattern


def sparsegpt(
    weights: list[Tensor],
    upper: Tensor,
    dead: Tensor,
    pattern: Pattern | None,
    *,
    block_size: int,
    compat: bool,
    masks: list[Tensor] | None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Prune ``weights``, each [R_i, C], that share a factor; see :func:`rac_kernels.sparsegpt`.

    From the values that enter a block, masks and weights are the reference's, bit for bit.
    """
    module, columns = load(CPU), upper.shape[0]
    lower = upper.mT if upper.stride(0) == 1 else upper.mT.contiguous()
    weights = [w if w.stride(1) == 1 or columns == 1 else w.contiguous() for w in weights]
    if masks is None:
        keeps = [torch.empty(w.shape, dtype=torch.bool) for w in weights]
    else:
        keeps = [mask.clone(memory_format=torch.contiguous_format) for mask in masks]
    tile = module.tile_rows()
    outs = [torch.empty(-(-w.shape[0] // tile) * tile, columns) for w in weights]
    parts = zip(weights, keeps, outs, strict=True)
    losses = module.sparsegpt(
        matrices=[
            (w.data_ptr(), w.stride(0), w.shape[0], keep.data_ptr(), out.data_ptr())
            for w, keep, out in parts
        ],
        lower=lower.data_ptr(),
        stride_lower=lower.stride(0),
        dead=dead.data_ptr() if bool(dead.any()) else 0,
        columns=columns,
        block_size=min(block_size, max(columns, 1)),
        dtype=DTYPES[weights[0].dtype],
        **_rule(pattern, compat),
        grow=pattern is not None and masks is not None,
        threads=threads(),
    )
    return [
        (out[: w.shape[0]].to(w.dtype), keep, torch.tensor(loss, dtype=torch.float64))
        for w, keep, out, loss in zip(weights, keeps, outs, losses, strict=True)
    ]


def _rule(pattern: Pattern | None, compat: bool) -> dict[str, str | float | int]:
    """What the module is told of which weights go."""
    if pattern is None:
        return {"rule": "given", "sparsity": 0.0, "n": 0, "m": 0}
    if pattern.structured:
        return {"rule": "n:m", "sparsity": 0.0, "n": pattern.n, "m": pattern.m}
    rule = "threshold" if compat else "count"
    return {"rule": rule, "sparsity": pattern.sparsity, "n": 0, "m": 0}
