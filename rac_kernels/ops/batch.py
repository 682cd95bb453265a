"""Many layers at once, such as the experts of a mixture: each as by itself, bit for bit."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import refuse
from rac_kernels.factor import HessianFactor
from rac_kernels.ops.hessian import factor_hessian
from rac_kernels.ops.sparsegpt import sparsegpt
from rac_kernels.pattern import Pattern

Result = TypeVar("Result")

# Up to here a layer does not keep several threads busy: on a CPU every thread takes layers of its
# own. Above, all threads work on one layer, and no more than one layer's scratch is in memory.
SMALL = 1024


def factor_hessians(
    hessians: Sequence[Tensor],
    damping: float = 0.01,
    *,
    max_damping: float = 0.5,
    overwrite: bool = False,
    impl: str = "auto",
) -> list[HessianFactor]:
    """:func:`factor_hessian` of every one of ``hessians``, float32 [C, C] each.

    On a CPU several small ones are factored at a time; on a GPU one after the other.

    Raises:
        ValueError, TypeError: as :func:`factor_hessian`, with the index of the first that fails.
    """

    def factor(hessian: Tensor) -> HessianFactor:
        return factor_hessian(
            hessian, damping, max_damping=max_damping, overwrite=overwrite, impl=impl
        )

    jobs = [lambda h=h: factor(h) for h in hessians]
    return _run("factor_hessians", jobs, [_columns(hessian) for hessian in hessians])


def sparsegpt_batch(
    weights: Sequence[Tensor | Sequence[Tensor]],
    factors: Sequence[HessianFactor],
    pattern: Pattern,
    *,
    block_size: int = 128,
    compat: bool = False,
    impl: str = "auto",
) -> list:
    """:func:`sparsegpt` of every weight (or list of weights that share inputs) with its factor.

    On a CPU several small ones are solved at a time. On a GPU they are launched one after the
    other, and the host waits for none.

    Args:
        weights: [R_i, C_i] each, or lists of such.
        factors: as many, of [C_i, C_i].
        pattern: as for :func:`sparsegpt`.
        block_size: as for :func:`sparsegpt`.
        compat: as for :func:`sparsegpt`.
        impl: as for :func:`sparsegpt`.

    Returns:
        What :func:`sparsegpt` returns, for each.

    Raises:
        ValueError, TypeError: as :func:`sparsegpt`, with the index of the first that fails.
    """
    op = "sparsegpt_batch"
    if len(weights) != len(factors):
        refuse(op, f"{len(weights)} factors for as many weights", len(factors))
    options = {"block_size": block_size, "compat": compat, "impl": impl}
    pairs = zip(weights, factors, strict=True)
    jobs = [lambda w=w, f=f: sparsegpt(w, f, pattern, **options) for w, f in pairs]
    return _run(op, jobs, [_columns(getattr(factor, "upper", None)) for factor in factors])


def _columns(matrix: Tensor | None) -> int:
    """C of a matrix [C, C], 0 of what the job will refuse."""
    return matrix.shape[-1] if isinstance(matrix, Tensor) and matrix.ndim else 0


def _run(op: str, jobs: list[Callable[[], Result]], columns: list[int]) -> list[Result]:
    """All results, in order; the first error names its place."""
    workers = min(torch.get_num_threads(), len(jobs))

    def run(index: int) -> Result:
        try:
            return jobs[index]()
        except (ValueError, TypeError) as error:
            raise type(error)(f"{op}: number {index}: {error}") from error

    def run_alone(index: int) -> Result:
        with _native.use_threads(1):
            return run(index)

    if workers < 2 or max(columns) > SMALL:
        return [run(index) for index in range(len(jobs))]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(run_alone, range(len(jobs))))
