"""Which scores of a tile are its lowest: keys, ranks and searches that stay in registers."""

import triton
import triton.language as tl

FIRST = tl.constexpr(-0x80000000)  # below the key of any score


@triton.jit
def score_keys(values, scale, SCORE: tl.constexpr):
    """int32 keys that order as the scores do (-0.0 as 0.0), and which scores are NaN.

    SCORE: "value" x, "abs" |x|, "wanda" |x| * scale, "obs" x^2 / scale^2; rounded as in torch.
    """
    score = values.to(tl.float32)
    if SCORE == "abs":
        score = tl.abs(score)
    elif SCORE == "wanda":
        score = tl.abs(score) * scale
    elif SCORE == "obs":
        score = tl.div_rn(score * score, scale * scale)
    bits = tl.where(score == 0, 0.0, score).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF), score != score


@triton.jit
def put_first(keys, keep_ptr, offs, mask):
    """Keys with those of what a given mask prunes below all others."""
    if keep_ptr is not None:
        kept = tl.load(keep_ptr + offs, mask=mask, other=1)
        keys = tl.where(kept != 0, keys, FIRST)
    return keys


@triton.jit
def rank_of(keys, offs_c, first, end):
    """How many of a row's columns first..end are pruned before each of them, ties by index."""
    rank = tl.zeros_like(keys)
    for i in range(first, end):
        key = tl.max(tl.where((offs_c == i)[None, :], keys, FIRST), 1)[:, None]
        rank += ((key < keys) | ((key == keys) & (i < offs_c)[None, :])).to(tl.int32)
    return rank


@triton.jit
def lowest_of_four(keys, N: tl.constexpr, BLOCK_V: tl.constexpr, WIDTH: tl.constexpr):
    """The N lowest of every 4 neighbours of [BLOCK_V, WIDTH] keys: six compares."""
    even, odd = tl.split(tl.reshape(keys, [BLOCK_V, WIDTH // 4, 2, 2]))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    ab, ac, ad = (a <= b).to(tl.int32), (a <= c).to(tl.int32), (a <= d).to(tl.int32)
    bc, bd, cd = (b <= c).to(tl.int32), (b <= d).to(tl.int32), (c <= d).to(tl.int32)
    even = tl.join(3 - ab - ac - ad < N, ac + bc + 1 - cd < N)
    odd = tl.join(ab + 2 - bc - bd < N, ad + bd + cd < N)
    return tl.reshape(tl.join(even, odd), [BLOCK_V, WIDTH])


@triton.jit
def count_below(keys, bound):
    """How many of each row's keys [BLOCK_R, BLOCK_C] are below its bound, int64 [BLOCK_R]."""
    return tl.sum((keys < bound.to(tl.int32)[:, None]).to(tl.int32), 1).to(tl.int64)


@triton.jit
def search_key(head, tail, count, columns, TAIL: tl.constexpr):
    """The key below which a row's `count` lowest are, and how many of its ties complete them.

    A row is `head` [BLOCK_R, BLOCK_C] and, if TAIL, `tail` after it, padded with 2^31 - 1. With
    F(t) the number of keys below t, low and high close in on F(low) <= count < F(high) until F(low)
    is count or high is low + 1. Three steps of four go where a uniform density would put the bound,
    the fourth to the middle: about 9 steps for 20,000 smooth scores, 128 at the worst.

    Returns:
        The key and the number of ties, int32 [BLOCK_R].
    """
    low = tl.min(head, 1).to(tl.int64)
    high = tl.max(tl.where(head == 0x7FFFFFFF, -0x80000000, head), 1).to(tl.int64) + 1
    if TAIL:
        low = tl.minimum(low, tl.min(tail, 1))
        top = tl.max(tl.where(tail == 0x7FFFFFFF, -0x80000000, tail), 1).to(tl.int64) + 1
        high = tl.maximum(high, top)
    below_high = tl.zeros_like(low) + columns
    everything = below_high == count
    low = tl.where(everything, high, low)
    below_low = tl.where(everything, below_high, 0)
    searching = (below_low != count) & (high - low > 1)
    step = 0
    while tl.max(searching.to(tl.int32), 0) > 0:
        middle = low + (high - low) // 2
        if step % 4 != 3:
            share = (count - below_low).to(tl.float32) / (below_high - below_low).to(tl.float32)
            guess = low + ((high - low).to(tl.float32) * share).to(tl.int64)
            middle = tl.maximum(tl.minimum(guess, high - 1), low + 1)
        below = count_below(head, middle)
        if TAIL:
            below += count_below(tail, middle)
        rise = searching & (below <= count)
        fall = searching & (below > count)
        low, below_low = tl.where(rise, middle, low), tl.where(rise, below, below_low)
        high, below_high = tl.where(fall, middle, high), tl.where(fall, below, below_high)
        searching = (below_low != count) & (high - low > 1)
        step += 1
    return low.to(tl.int32), (count - below_low).to(tl.int32)
