"""SparseGPT, left-looking, launch after launch: the host waits for nothing inside a matrix.

For every block b of columns, with D the change of the columns before it:

    carry_kernel          (U_{<b,b} U_bb^-1)^T
    values_kernel         W_b - D_{<b} carry            nearly all of the flops, R C^2
    select_lowest         unstructured: where the block's lowest scores end, segment by segment
    solve_block_kernel    mask, updates, errors; writes D_b, the mask and the weights

Matrices that share U are stacked by rows; each is a segment with a selection of its own.
"""

from collections.abc import Iterator

import torch
import triton
from torch import Tensor

from rac_kernels._triton import tuning
from rac_kernels._triton.selection import device_table, select_lowest
from rac_kernels._triton.solve_block import solve_block_kernel
from rac_kernels._triton.split_product import carry_kernel, values_kernel
from rac_kernels.pattern import Pattern

# Columns that a program of solve_block_kernel keeps in registers at a time.
STEP = 32


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
    """Prune ``weights``, each [R_i, C], that share a factor; see :func:`rac_kernels.sparsegpt`."""
    sizes = [weight.shape[0] for weight in weights]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    if weight.stride(1) != 1:
        weight = weight.contiguous()
    rows, columns = weight.shape
    new = {"device": weight.device}
    keep = torch.empty(rows, columns, dtype=torch.bool, **new)
    if masks is not None:
        torch.cat(masks, out=keep)
    delta = torch.empty(rows, columns, dtype=torch.float32, **new)  # D
    pruned = torch.empty(rows, columns, dtype=weight.dtype, **new)
    losses = torch.zeros(len(weights), dtype=torch.float64, **new)
    with torch.cuda.device_of(weight):
        if weight.numel():
            job = _Job(weight, upper, dead, keep, delta, pruned, pattern, sizes, compat)
            if pattern is not None and masks is not None:
                job.grow(masks)
            for start, inverse in _block_inverses(upper, block_size):
                losses += job.solve(start, inverse)
    return list(zip(pruned.split(sizes), keep.split(sizes), losses.unbind(), strict=True))


def _block_inverses(upper: Tensor, block_size: int) -> Iterator[tuple[int, Tensor]]:
    """First column and U_bb^-1 of every block, found in float64 (much rests on it), in batches."""
    columns = upper.shape[0]
    whole, rest = divmod(columns, block_size)
    for start, count, size in ((0, whole, block_size), (columns - rest, 1, rest)):
        if count * size == 0:
            continue
        row, column = upper.stride()
        blocks = upper[start:, start:].as_strided(
            (count, size, size), (size * (row + column), row, column)
        )
        identity = torch.eye(size, dtype=torch.float64, device=upper.device).expand_as(blocks)
        inverses = torch.linalg.solve_triangular(blocks.double(), identity, upper=True)
        for index, inverse in enumerate(inverses.float().contiguous()):
            yield start + index * size, inverse


class _Job:
    """The tensors of one call, and the launches of one block."""

    def __init__(
        self,
        weight: Tensor,
        upper: Tensor,
        dead: Tensor,
        keep: Tensor,
        delta: Tensor,
        pruned: Tensor,
        pattern: Pattern | None,
        sizes: list[int],
        compat: bool,
    ) -> None:
        """All on one device; keep, delta and pruned are contiguous, like weight [R, C]."""
        self.weight, self.upper, self.dead = weight, upper, dead
        self.keep, self.delta, self.pruned = keep, delta, pruned
        self.pattern, self.sizes, self.compat = pattern, sizes, compat
        self.config = tuning.pick_solve(weight.device)
        self.starts = device_table([sum(sizes[:i]) for i in range(len(sizes) + 1)], weight.device)
        self.counts: dict[int, Tensor] = {}  # by the width of a block: there are two at most
        self.given: Tensor | None = None  # int32 [S, C]: what masks that grow prune of each column

    def grow(self, masks: list[Tensor]) -> None:
        """What keep prunes stays so and counts towards the pattern."""
        sums = [torch.logical_not(mask).sum(0, dtype=torch.int32) for mask in masks]
        self.given = torch.stack(sums)

    def solve(self, start: int, inverse: Tensor) -> Tensor:
        """Prune the block that begins at column `start`; returns the segments' losses."""
        values = self._values(start, inverse)
        selection = None
        if self.pattern is not None and not self.pattern.structured:
            block = slice(start, start + inverse.shape[0])
            selection = select_lowest(
                values,
                self.starts,
                self._counts(block),
                max(self.sizes),
                "obs",
                scale=inverse.diagonal().contiguous(),
                keep=None if self.given is None else self.keep[:, block],
                all_ties=self.compat,
            )
        return self._solve(values, start, inverse, selection)

    def _counts(self, block: slice) -> Tensor:
        """How many weights of a block's columns are pruned, by segment, int32 [S]."""
        width = block.stop - block.start
        if width not in self.counts:
            counts = [self._count(size * width) for size in self.sizes]
            self.counts[width] = device_table(counts, self.weight.device)
        if self.given is None:
            return self.counts[width]
        given = self.given[:, block].sum(1, dtype=torch.int32)
        return torch.maximum(self.counts[width], given)

    def _count(self, size: int) -> int:
        """How many of a segment's `size` scores are pruned; in compat mode ties come on top."""
        if self.compat and size:
            return min(int(size * self.pattern.sparsity), size - 1) + 1
        return self.pattern.count(size)

    def _values(self, start: int, inverse: Tensor) -> Tensor:
        """The block [R, B] before its solve."""
        rows, width, config = self.weight.shape[0], inverse.shape[0], self.config
        values = torch.empty(rows, width, dtype=torch.float32, device=inverse.device)
        # Rows of carry start at multiples of 16 bytes.
        carry = torch.empty(
            2, width, -(-start // 4) * 4, dtype=torch.float32, device=inverse.device
        )
        if start:
            grid = (triton.cdiv(start, config.carry_i), triton.cdiv(width, config.block_b))
            carry_kernel[grid](
                self.upper,
                inverse,
                carry[0],
                carry[1],
                start,
                width,
                *self.upper.stride(),
                carry.stride(1),
                BLOCK_B=config.block_b,
                BLOCK_I=config.carry_i,
                BLOCK_K=config.block_k,
                num_warps=config.num_warps,
            )
        grid = (triton.cdiv(rows, config.block_r), triton.cdiv(width, config.block_b))
        values_kernel[grid](
            self.weight,
            self.dead,
            self.delta,
            carry[0],
            carry[1],
            values,
            rows,
            start,
            width,
            self.weight.stride(0),
            self.delta.stride(0),
            carry.stride(1),
            BLOCK_R=config.block_r,
            BLOCK_B=config.block_b,
            BLOCK_K=config.block_k,
            SEGMENT=config.segment,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
        return values

    def _solve(self, values: Tensor, start: int, inverse: Tensor, selection: Tensor) -> Tensor:
        n, m, rule = 0, 1, "given" if selection is None else "selected"
        if self.pattern is not None and self.pattern.structured:
            n, m, rule = self.pattern.n, self.pattern.m, "n:m"
        step = max(STEP // m, 1) * m
        sub = max(triton.next_power_of_2(step), 16)
        segments, programs = len(self.sizes), tuning.count_programs(values.device, 1)
        block_r = self.config.rows_of(sum(self.sizes), programs)
        block_r = max(block_r * STEP // max(sub, STEP), 16)
        tiles = triton.cdiv(max(self.sizes), block_r)
        losses = torch.empty(segments, tiles, dtype=torch.float64, device=values.device)
        solve_block_kernel[(segments * tiles,)](
            values,
            inverse,
            torch.empty_like(values),
            self.weight,
            self.dead,
            self.keep,
            self.delta,
            self.pruned,
            losses,
            self.starts,
            selection,
            start,
            inverse.shape[0],
            self.weight.stride(0),
            self.keep.stride(0),
            tiles,
            RULE=rule,
            GROW=self.given is not None,
            N=n,
            M=m,
            STEP=step,
            SUB=sub,
            BLOCK_R=block_r,
            num_warps=self.config.solve_warps,
            num_stages=1,
        )
        return losses.sum(1)
