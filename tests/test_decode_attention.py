"""Attention over a cache for one token a sequence: every implementation against float64."""

import math

import pytest
import torch
from capturing import activity, buffer_for, staged
from instruction_sets import every_instruction_set
from numeric import EPS32, implementation, native
from sparse_linear import inputs

from rac_kernels import _native, decode_attention

# B, H, K, S, D: one column, one head; groups of 1 to 7; widths off a vector; several splits.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 4, 1, 1, 80),
    (3, 9, 3, 33, 64),
    (1, 12, 2, 64, 128),
    (2, 6, 3, 600, 17),
    (2, 14, 2, 1100, 40),
    (1, 5, 5, 513, 96),
]
DTYPES = [torch.float32, torch.bfloat16]


def problem(batch, heads, groups, columns, width, dtype=torch.float32):
    """query, keys, values of a longer cache, mask."""
    query = inputs(batch, heads, width, dtype=dtype)
    cache = inputs(2, batch, groups, columns + 5, width, dtype=dtype, seed=2)
    keys, values = cache[:, :, :, 3 : 3 + columns].unbind()
    mask = torch.rand(batch, columns, generator=torch.Generator().manual_seed(3)) > 0.3
    mask[:, -1] = True
    return query, keys, values, mask


def attention64(query, keys, values, mask, scaling):
    """The output in float64, and a bound on the error of float32 arithmetic.

    A score is wrong by gamma_{D+2} |q| |k| scaling, so a probability by twice the worst of those
    and the error of exp and of the sums, relatively; then come the products with v.
    """
    heads, width = query.shape[1:]
    per_group = heads // keys.shape[1]
    keys, values = (x.double().repeat_interleave(per_group, 1) for x in (keys, values))
    query = query.double()[:, :, None]  # [B, H, 1, D]
    scores = query @ keys.mT * scaling
    size = (query.abs() @ keys.abs().mT * abs(scaling)).amax((2, 3), keepdim=True)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], -math.inf)
    probabilities = scores.softmax(-1)
    columns = keys.shape[2]
    spread = scores.masked_fill(scores == -math.inf, 0).abs().amax((2, 3), keepdim=True)
    relative = 2 * (width + 4) * size + 4 * spread + columns + 16
    bound = relative * EPS32 * (probabilities @ values.abs())
    return (probabilities @ values)[:, :, 0], bound[:, :, 0]


def assert_is_attention(output, query, keys, values, mask=None, scaling=None):
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    truth, bound = attention64(query, keys, values, mask, scaling)
    assert output.shape == query.shape and output.dtype == query.dtype
    bound = bound + torch.finfo(output.dtype).eps / 2 * (truth.abs() + bound)
    assert ((output.double() - truth).abs() - bound).max() <= 0


@implementation
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_attention(impl, dtype, shape):
    query, keys, values, mask = problem(*shape, dtype)
    output = decode_attention(query, keys, values, mask=mask, impl=impl)
    assert_is_attention(output, query, keys, values, mask)
    output = decode_attention(query, keys, values, scaling=0.3, impl=impl)
    assert_is_attention(output, query, keys, values, scaling=0.3)


@native
@every_instruction_set
@pytest.mark.parametrize("shape", SHAPES)
def test_every_instruction_set_and_any_threads(instruction_set, shape):
    for dtype in DTYPES:
        query, keys, values, mask = problem(*shape, dtype)
        found = []
        for threads in (1, 2, 5):
            with _native.use_threads(threads):
                found.append(
                    _native.decode_attention(query, keys, values, mask, 0.25, None, None, None)
                )
        assert_is_attention(found[0], query, keys, values, mask, 0.25)
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def rotated(x, cosine, sine):
    """As transformers' Llama, Qwen2 and Qwen3 do."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cosine[:, None] + turned * sine[:, None]


@implementation
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 9, 3, 33, 64), (2, 6, 3, 600, 18), (1, 2, 1, 1, 2)])
def test_rotates_and_appends_first(impl, dtype, shape):
    batch, heads, groups, columns, width = shape
    query, keys, values, mask = problem(*shape, dtype)
    joint = inputs(batch, (heads + 2 * groups) * width, dtype=dtype, seed=5)
    parts = joint.split([heads * width, groups * width, groups * width], dim=-1)
    query, key, value = (part.view(batch, -1, width) for part in parts)
    cosine, sine = (inputs(batch, width, dtype=dtype, seed=s) for s in (6, 7))
    before = keys[:, :, :-1].clone(), values[:, :, :-1].clone()
    output = decode_attention(
        query, keys, values, mask=mask, new=(key, value), rotary=(cosine, sine), impl=impl
    )
    assert torch.equal(keys[:, :, -1], rotated(key, cosine, sine))  # to the bit
    assert torch.equal(values[:, :, -1], value)
    assert torch.equal(keys[:, :, :-1], before[0]) and torch.equal(values[:, :, :-1], before[1])
    assert_is_attention(output, rotated(query, cosine, sine), keys, values, mask)
    decode_attention(query, keys, values, new=(key, value), impl=impl)
    assert torch.equal(keys[:, :, -1], key)


@implementation
def test_a_key_far_above_the_others_and_masked_rows(impl):
    query, keys, values, mask = problem(2, 4, 2, 700, 16)
    keys[:, :, 650] *= 1000
    mask[:, 650] = True
    mask[1] = False
    output = decode_attention(query, keys, values, mask=mask, impl=impl)
    assert_is_attention(output[:1], query[:1], keys[:1], values[:1], mask[:1])
    assert (output[1] == 0).all()
    query[0, 1] = math.nan
    output = decode_attention(query, keys, values, mask=mask, impl=impl)
    assert output[0, 1].isnan().all() and output[0, [0, 2, 3]].isfinite().all()
    query[0, 1] = 1e30  # scores of infinity: NaN, as torch's softmax
    keys[0] = 1e30
    assert decode_attention(query, keys, values, impl=impl)[0, 1].isnan().all()


@implementation
@pytest.mark.parametrize("dtype", DTYPES)
def test_captures_the_active_rows(impl, dtype):
    query, keys, values, mask = problem(4, 6, 2, 20, 32, dtype)
    buffer, active = buffer_for(query.flatten(1), 9), activity(4, impl)
    output = decode_attention(
        query, keys, values, mask=mask, buffer=buffer, active=active[:, None], impl=impl
    )
    decode_attention(query, keys, values, mask=mask, buffer=buffer, impl=impl)
    assert torch.equal(staged(buffer), torch.cat([output[active], output]).flatten(1))


def test_auto_takes_the_reference_for_fp16_and_where_a_backward_is_needed():
    query, keys, values, _ = problem(2, 4, 2, 9, 16, torch.float16)
    assert_is_attention(decode_attention(query, keys, values), query, keys, values)
    with pytest.raises(ValueError, match="not float16"):
        decode_attention(query, keys, values, impl="native")
    query = query.float().requires_grad_()
    decode_attention(query, keys.float(), values.float()).sum().backward()
    assert query.grad.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(2, 16)}, r"expected query \[B, H, D\], got \[2, 16\]"),
        ({"keys": torch.zeros(2, 3, 9, 16)}, "K dividing 4"),
        ({"keys": torch.zeros(2, 2, 0, 16)}, "S >= 1"),
        ({"values": torch.zeros(2, 2, 8, 16)}, r"values \[2, 2, 9, 16\], got \[2, 2, 8, 16\]"),
        ({"keys": torch.zeros(2, 2, 16, 9).mT}, "keys with a unit last stride"),
        ({"mask": torch.ones(2, 8, dtype=torch.bool)}, r"mask bool \[2, 9\]"),
        ({"mask": torch.ones(2, 9)}, "mask bool"),
        ({"new": (torch.zeros(2, 2, 16), torch.zeros(2, 4, 16))}, r"new\[1\] \[2, 2, 16\]"),
        ({"rotary": (torch.zeros(1, 16), torch.zeros(2, 16))}, r"rotary\[0\] \[2, 16\]"),
    ],
)
def test_refusals(change, message):
    query, keys, values, _ = problem(2, 4, 2, 9, 16)
    arguments = {"query": query, "keys": keys, "values": values} | change
    with pytest.raises(ValueError, match=f"decode_attention: .*{message}"):
        decode_attention(**arguments)


def test_refused_types():
    query, keys, values, _ = problem(2, 4, 2, 9, 16)
    with pytest.raises(TypeError, match="expected keys in torch.float32 like query"):
        decode_attention(query, keys.bfloat16(), values)
    with pytest.raises(TypeError, match="expected a tensor for values, got list"):
        decode_attention(query, keys, [1.0])
    query, keys, values, _ = problem(2, 3, 1, 9, 15)
    with pytest.raises(ValueError, match="an even D to rotate, got 15"):
        decode_attention(query, keys, values, rotary=(query[:, 0], query[:, 0]))
