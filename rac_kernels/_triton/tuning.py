"""Tile shapes by compute capability and shape; usable without a GPU and without Triton.

The lists are short, their first entry is the default and the others are what to try on a GPU. They
change how fast a result is had and the order of its sums, never what it means. What was measured to
be best on a GPU stands in tuned.json, by the GPU's name (benchmarks/tune.py); all others run the
defaults, chosen by registers, shared memory and rounds of tiles.
"""

import math
from dataclasses import dataclass

import torch

from rac_kernels._triton.tuned import tuned

INTERPRETER_PROGRAMS = 4


@dataclass(frozen=True)
class HessianConfig:
    """How the rank-k update is tiled.

    Attributes:
        block_i: rows of a tile of H; divides 128, so that a tile is within one packed block row.
        block_j: columns of a tile of H; a multiple or a divisor of block_i.
        block_t: tokens per step.
        num_warps: per program.
        num_stages: steps whose loads are in flight.
        programs_per_sm: of the persistent grid.
        group: block rows walked together, so that x is read from the L2 cache.
        segment: tokens that one accumulator takes at most: tensor cores round towards zero.
        precision: of the product of float32 operands (weighted rows are float32); see
            triton.language.dot. bf16x6 keeps all 24 bits of both.
        tma: load bf16 and fp16 rows by the copy engine (sm_90), where nothing masks them.
    """

    block_i: int
    block_j: int
    block_t: int
    num_warps: int
    num_stages: int
    programs_per_sm: int = 1
    group: int = 8
    segment: int = 16384
    precision: str = "bf16x6"
    tma: bool = False

    def count_tiles(self, features: int) -> int:
        """Tiles of the lower triangle of H [D, D], in whole squares of the longer side."""
        side = max(self.block_i, self.block_j)
        squares = -(-features // side)
        return squares * (squares + 1) // 2 * (side // self.block_i) * (side // self.block_j)


# (capability, class of shape) -> configurations. "wide" and "narrow" take bf16 and fp16, "float32"
# also weighted rows, "odd" all whose rows are not aligned to 16 bytes.
HESSIAN = {
    (90, "wide"): (
        HessianConfig(128, 256, 64, num_warps=8, num_stages=4),
        HessianConfig(128, 256, 64, num_warps=8, num_stages=4, tma=True),
        HessianConfig(128, 128, 64, num_warps=4, num_stages=3, programs_per_sm=2, group=12),
    ),
    (90, "narrow"): (
        HessianConfig(128, 128, 64, num_warps=4, num_stages=3, programs_per_sm=2, group=12),
        HessianConfig(128, 128, 64, num_warps=8, num_stages=4, tma=True),
    ),
    (90, "float32"): (
        HessianConfig(128, 128, 16, num_warps=8, num_stages=4, segment=4096),
        HessianConfig(128, 128, 32, num_warps=8, num_stages=3, segment=4096, precision="ieee"),
    ),
    (80, "wide"): (
        HessianConfig(128, 128, 32, num_warps=8, num_stages=4),
        HessianConfig(128, 128, 64, num_warps=8, num_stages=3),
    ),
    (80, "float32"): (HessianConfig(128, 128, 16, num_warps=8, num_stages=3, segment=4096),),
    (90, "odd"): (HessianConfig(64, 64, 32, num_warps=4, num_stages=3, segment=4096),),
}
HESSIAN[80, "narrow"] = HESSIAN[80, "wide"]
HESSIAN[80, "odd"] = HESSIAN[90, "odd"]
# A tile of 128 x 256 wastes 128 D on the diagonal, and too few of them keep no GPU busy.
NARROW = 3072


def capability(device: torch.device) -> int:
    """Compute capability whose lists fit ``device``: 90 for Hopper, 80 for all else."""
    if device.type != "cuda":
        return 90
    return 90 if torch.cuda.get_device_capability(device)[0] == 9 else 80


def pick_hessian(
    features: int, dtype: torch.dtype, weighted: bool, aligned: bool, device: torch.device
) -> HessianConfig:
    """Choose for D = ``features``, the dtype of x and what is known of its rows."""
    kind = "narrow" if features < NARROW else "wide"
    if weighted or dtype == torch.float32:
        kind = "float32"
    kind = kind if aligned else "odd"
    return tuned(device, "hessian", kind, HESSIAN[capability(device), kind][0])


def count_programs(device: torch.device, per_sm: int) -> int:
    """Programs of a persistent grid."""
    if device.type != "cuda":
        return INTERPRETER_PROGRAMS
    return per_sm * torch.cuda.get_device_properties(device).multi_processor_count


# What a unit of work costs beside its tokens, in tokens' time of a 128 x 256 tile on an H200
# (11 ns): starting and writing a tile, the same for a part of a split tile, and reading one part
# back. Estimates from bytes over bandwidth.
WHOLE_TOKENS, PART_TOKENS, REDUCE_TOKENS = 250, 400, 100
MAX_SPLITS = 64
MAX_PARTS = 8  # parts in the workspace, per program


def plan_splits(tiles: int, tokens: int, programs: int) -> tuple[int, int]:
    """Which tiles to split over the tokens, so that all programs end together.

    Of 420 equal tiles 132 programs do 3 each, and then 24 do a fourth while 108 wait. Cutting the
    last 24 in 5 ends at 3.2 tiles' time. Tiles that are not split come in whole rounds.

    Args:
        tiles: equal ones.
        tokens: that each tile sums over.
        programs: that run at the same time.

    Returns:
        How many tiles to split and into how many parts; (0, 1) if none.
    """
    whole = tokens + WHOLE_TOKENS
    best = (math.ceil(tiles / programs) * whole, 0, 1)
    for rounds in range(max(0, tiles // programs - 2), tiles // programs + 1):
        split = tiles - rounds * programs
        most = min(MAX_SPLITS, MAX_PARTS * programs // max(split, 1))
        for parts in range(2, most + 1 if split else 0):
            part = math.ceil(tokens / parts) + PART_TOKENS
            last = math.ceil(split * parts / programs) * part + parts * REDUCE_TOKENS
            best = min(best, (rounds * whole + last, split, parts))
    return best[1:]


@dataclass(frozen=True)
class SolveConfig:
    """How SparseGPT's launches are tiled.

    Attributes:
        block_r: rows of a tile of the block's values.
        block_b: its columns; 128 is the whole block.
        block_k: columns of D per step.
        num_warps: of the products.
        num_stages: steps whose loads are in flight.
        segment: columns of D that one accumulator takes at most; a multiple of block_k.
        carry_i: rows of U that a program of the carry takes.
        solve_r: rows that a program solves; their columns stay in registers.
        least_r: where that leaves multiprocessors idle, no fewer rows than these.
        solve_warps: of the solve.
    """

    block_r: int
    block_b: int
    block_k: int
    num_warps: int
    num_stages: int
    segment: int = 512
    carry_i: int = 64
    solve_r: int = 64
    solve_warps: int = 4
    least_r: int = 32

    def rows_of(self, rows: int, programs: int) -> int:
        """Rows that a program solves of ``rows``: halved while twice as many can run at a time."""
        taken = self.solve_r
        while taken > self.least_r and 2 * -(-rows // taken) <= programs:
            taken //= 2
        return taken


SOLVE = {
    90: (
        SolveConfig(64, 128, 32, num_warps=4, num_stages=3),
        SolveConfig(128, 128, 32, num_warps=8, num_stages=3),
        SolveConfig(64, 128, 32, num_warps=4, num_stages=3, solve_r=32),
    ),
    80: (SolveConfig(64, 128, 16, num_warps=8, num_stages=3, least_r=64),),
}


def pick_solve(device: torch.device) -> SolveConfig:
    """Choose how SparseGPT's launches are tiled."""
    return tuned(device, "solve", "all", SOLVE[capability(device)][0])


@dataclass(frozen=True)
class FactorConfig:
    """How H = U U^T is blocked.

    Attributes:
        block: rows of a launch; a multiple of 16.
        panel: rows whose updates of all rows above them are made at once, half as many in small
            matrices; a multiple of 2 block and of 2 block_i.
        block_i: side of a tile of the update.
        block_k: rows of the panel per step of it.
        block_j: columns that a program of a launch takes, or twice as many in wide matrices.
        block_warps: of such a program.
        num_warps: of the update.
        num_stages: steps of it whose loads are in flight.
        precision: of the update's product; see HessianConfig.
    """

    block: int = 64
    panel: int = 512
    block_i: int = 128
    block_k: int = 32
    block_j: int = 64
    block_warps: int = 4
    num_warps: int = 8
    num_stages: int = 3
    precision: str = "bf16x6"

    def panel_of(self, columns: int) -> int:
        """Rows of a panel of a matrix [C, C]: its launches take as long as their sums are deep."""
        return self.panel if columns > SMALL_FACTOR else self.panel // 2


SMALL_FACTOR = 8192

FACTOR = {
    90: (FactorConfig(), FactorConfig(panel=1024)),
    80: (FactorConfig(block_k=16), FactorConfig(block_k=16, panel=1024)),
}


def pick_factor(device: torch.device) -> FactorConfig:
    """Choose how the factor is blocked."""
    return tuned(device, "factor", "all", FACTOR[capability(device)][0])


@dataclass(frozen=True)
class FactorChoice:
    """Where impl="auto" of the factor takes these kernels rather than cuSOLVER.

    Attributes:
        least: the least C; None: nowhere, as on a GPU on which neither was timed.
    """

    least: int | None = None


def factor_from(device: torch.device) -> int | None:
    """The least C for which "auto" takes the Triton factor on ``device``."""
    return tuned(device, "factor", "choice", FactorChoice()).least
