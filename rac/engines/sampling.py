"""Drawing the next token from logits."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from rac.engines.base import Sampling
from rac_kernels import nucleus_sample

DRAW_BITS = 24  # as many as a float32 in [0, 1) holds


def stream_key(seed: int, request: int = 0) -> int:
    """The key of a request's own stream of random numbers."""
    return int(_splitmix64(_splitmix64([seed % 2**64], [0]), [request])[0])


def draws(keys: Sequence[int], positions: Sequence[int]) -> list[int]:
    """The number at a position of each key's stream, DRAW_BITS bits.

    Nothing is kept between calls: what a request draws at a position depends neither on what else
    is decoded beside it nor on whether a run was interrupted before.
    """
    return (_splitmix64(keys, positions) >> np.uint64(64 - DRAW_BITS)).tolist()


def to_uniform(drawn: Tensor) -> Tensor:
    """Float32 in [0, 1) of what `draws` gave."""
    return drawn.float() * 2.0**-DRAW_BITS


def _splitmix64(seeds: Sequence[int] | np.ndarray, positions: Sequence[int]) -> np.ndarray:
    """What SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) gives at a position from each seed."""
    z = np.asarray(positions, dtype=np.uint64) + np.uint64(1)
    z = np.asarray(seeds, dtype=np.uint64) + z * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def sample(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """Draw one id a row of `logits` [B, V]; int64 [B] on their device, without waiting for it.

    Greedy at temperature 0; else a draw from the nucleus (Holtzman et al., arXiv 1904.09751), where
    `uniform` [B], in [0, 1), says. -1 where a row holds NaN or +Inf, or nothing but -Inf: whoever
    reads the ids has to look for it.
    """
    return nucleus_sample(logits, uniform, temperature=sampling.temperature, top_p=sampling.top_p)
