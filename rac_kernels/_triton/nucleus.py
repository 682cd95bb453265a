"""The nucleus of one row, found and drawn from by one program: the parts of nucleus_sample.py.

Ids rank by distance = float32(maximum - logit); distances are not negative, so they order as their
bits do. Weights are exp2(-distance * log2(e) / temperature), with a relative error of 2^-22 +
2^-24 |exponent|. Sums are float32: a tree over lanes of at most V / BLOCK terms. `scale` is log2(e)
/ temperature throughout.
"""

import math

import triton
import triton.language as tl

LOWEST = tl.constexpr(-87.0 * math.log2(math.e))  # exp2 of less counts as 0: not a normal float
NEG_INF = tl.constexpr(-math.inf)
FLOAT_MAX = tl.constexpr(3.4028234663852886e38)


@triton.jit
def weight_of(distance, scale):
    """exp(-distance / temperature), scale = log2(e) / temperature; NaN for NaN."""
    exponent = -distance * scale
    return tl.where(exponent < LOWEST, 0.0, tl.exp2(exponent))


@triton.jit
def load_keys(source_ptr, offs, size, maximum, scale):
    """Bits of the distance, +Inf past the end, and weight."""
    values = tl.load(source_ptr + offs, mask=offs < size, other=NEG_INF)
    distance = maximum - values.to(tl.float32)
    return distance.to(tl.int32, bitcast=True), weight_of(distance, scale)


@triton.jit
def key_of(exponent, scale):
    """Key of the distance at which weights are exp2(exponent); -1, below all keys, from 1 on."""
    distance = tl.minimum(-exponent / scale, FLOAT_MAX)
    return tl.where(exponent < 0, distance.to(tl.int32, bitcast=True), -1)


@triton.jit
def collect_candidates(
    logits_ptr, values_ptr, ids_ptr, size, maximum, scale, near, capacity, BLOCK: tl.constexpr
):
    """Copy -distance and id of the keys up to `near`, in order; how many, and their mass."""
    count = 0
    masses = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        key, weight = load_keys(logits_ptr, offs, size, maximum, scale)
        chosen = key <= near
        place = count + tl.cumsum(chosen.to(tl.int32), 0) - 1
        chosen = chosen & (place < capacity)
        tl.store(values_ptr + place, -key.to(tl.float32, bitcast=True), mask=chosen)
        tl.store(ids_ptr + place, offs, mask=chosen)
        masses += tl.where(chosen, weight, 0.0)
        count += tl.sum(chosen.to(tl.int32), 0)
    tl.debug_barrier()  # what other threads stored is read from here on
    return count, tl.sum(masses, 0)


@triton.jit
def find_last(
    source_ptr, size, maximum, scale, target, low, high, WAYS: tl.constexpr, BLOCK: tl.constexpr
):
    """Key of the last distance that belongs: with it, the nearest ones weigh `target` or more.

    Keys up to `low` weigh less, keys up to `high` enough; WAYS bounds between them are tried at
    once. Masses of two bounds are sums in the same order, so they never cross by rounding.
    """
    while high - low > 1:
        step = tl.maximum((high - low) // (WAYS + 1), 1)
        bounds = tl.minimum(low + (tl.arange(0, WAYS) + 1) * step, high)  # [WAYS]
        masses = tl.zeros((WAYS, BLOCK), tl.float32)
        for start in range(0, size, BLOCK):
            offs = start + tl.arange(0, BLOCK)
            key, weight = load_keys(source_ptr, offs, size, maximum, scale)
            masses += tl.where(key[None, :] <= bounds[:, None], weight[None, :], 0.0)
        enough = tl.sum(masses, 1) >= target  # [WAYS]
        high = tl.min(tl.where(enough, bounds, high), 0)
        low = tl.max(tl.where(enough, low, tl.minimum(bounds, high - 1)), 0)
    return high


@triton.jit
def weigh_up_to(source_ptr, size, maximum, scale, last, BLOCK: tl.constexpr):
    """Mass of the keys below `last`, and how many are equal to it."""
    masses = tl.zeros((BLOCK,), tl.float32)
    equal = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, size, BLOCK):
        key, weight = load_keys(source_ptr, start + tl.arange(0, BLOCK), size, maximum, scale)
        masses += tl.where(key < last, weight, 0.0)
        equal += (key == last).to(tl.int32)
    return tl.sum(masses, 0), tl.sum(equal, 0)


@triton.jit
def draw(source_ptr, size, maximum, scale, target, last, ties, BLOCK: tl.constexpr):
    """Position of the first that belongs and up to which those that do weigh more than `target`.

    Those below the key `last` belong, and the first `ties` equal to it. Where rounding leaves the
    target unreached: the last that belongs.
    """
    tie_weight = weight_of(last.to(tl.float32, bitcast=True), scale)
    start = tl.full((), 0, tl.int32)
    first, before, seen, found = start, start, start, start  # first: of the step with the draw
    base = tl.full((), 0.0, tl.float32)
    passed = base
    while (start < size) & (found == 0):
        key, weight = load_keys(source_ptr, start + tl.arange(0, BLOCK), size, maximum, scale)
        taken = tl.minimum(tl.maximum(ties - seen, 0), tl.sum((key == last).to(tl.int32), 0))
        mass = tl.sum(tl.where(key < last, weight, 0.0), 0)
        mass += taken * tie_weight
        first = tl.where(mass > 0, start, first)
        base = tl.where(mass > 0, passed, base)
        before = tl.where(mass > 0, seen, before)
        passed += mass
        seen += taken
        found = (passed > target).to(tl.int32)
        start += BLOCK

    offs = tl.arange(0, BLOCK)
    key, weight = load_keys(source_ptr, first + offs, size, maximum, scale)
    rank = before + tl.cumsum((key == last).to(tl.int32), 0)
    belongs = ((key < last) | ((key == last) & (rank <= ties))) & (weight > 0)
    cumulative = tl.cumsum(tl.where(belongs, weight, 0.0), 0)
    passing = belongs & (cumulative > target - base)
    nearest = tl.min(tl.where(passing, offs, BLOCK), 0)
    furthest = tl.max(tl.where(belongs, offs, -1), 0)
    return first + tl.where(nearest < BLOCK, nearest, furthest)


@triton.jit
def draw_nucleus(
    source_ptr,
    size,
    maximum,
    scale,
    target,
    low,
    high,
    uniform,
    WAYS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Position of the draw among `size` values of a row."""
    last = find_last(source_ptr, size, maximum, scale, target, low, high, WAYS, BLOCK)
    mass, equal = weigh_up_to(source_ptr, size, maximum, scale, last, BLOCK)
    tie_weight = weight_of(last.to(tl.float32, bitcast=True), scale)
    # As many ties as reach the target, at least one: without one the mass was not enough.
    wanted = tl.ceil(tl.minimum((target - mass) / tl.maximum(tie_weight, 1e-37), size * 1.0))
    ties = tl.minimum(tl.maximum(wanted.to(tl.int32), 1), equal)
    mass += ties * tie_weight
    return draw(source_ptr, size, maximum, scale, uniform * mass, last, ties, BLOCK)
