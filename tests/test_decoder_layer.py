"""A decoder layer in one call: the bits of its parts one by one."""

import functools
import math

import pytest
import torch
from capturing import staged
from instruction_sets import every_bf16_set
from numeric import native
from sparse_linear import inputs, sparse_weight

from rac_kernels import (
    CaptureBuffer,
    DecoderLayer,
    KeyValueCaches,
    _native,
    decode_attention,
    decode_layers,
    linear_2to4,
    linear_2to4_fp8,
    linear_bitmap,
    linear_dense,
    pack_2to4,
    pack_bitmap,
    quantize_fp8_rows,
    rmsnorm_capture,
    swiglu_capture,
)

pytestmark = native
H, K, D, C, F = 4, 2, 16, 64, 128  # query and key/value heads, their width; hidden, intermediate
EPS = 1e-6
ROWS = {"qkv": (H + 2 * K) * D, "output": C, "gate_up": 2 * F, "down": C}
COLUMNS = {"qkv": C, "output": H * D, "gate_up": C, "down": F}


def packed_fp8(weight):
    values, scale = quantize_fp8_rows(weight)
    return pack_2to4(values, scale=scale)


KINDS = {
    "dense": (lambda weight: weight, functools.partial(linear_dense, impl="native")),
    "2:4": (pack_2to4, linear_2to4),
    "2:4-fp8": (packed_fp8, linear_2to4_fp8),
    "bitmap": (pack_bitmap, linear_bitmap),
}


class Parts:
    """A layer's weights, and its parts one by one."""

    def __init__(self, kinds, dtype=torch.bfloat16, normed=False):
        self.dtype = dtype
        self.kinds = dict(zip(ROWS, kinds, strict=True))
        self.norms = [inputs(C, dtype=dtype, seed=s).abs() for s in (1, 2)]
        self.head_norms = [inputs(D, dtype=dtype, seed=s).abs() for s in (3, 4)] if normed else []
        self.weights, self.biases = {}, {}
        for seed, (name, kind) in enumerate(self.kinds.items()):
            weight = sparse_weight(ROWS[name], COLUMNS[name], seed=seed) / math.sqrt(COLUMNS[name])
            self.weights[name] = KINDS[kind][0](weight)
            self.biases[name] = inputs(ROWS[name], dtype=dtype, seed=10) if seed % 2 == 0 else None

    def layer(self, **changes):
        linears = {name: (self.weights[name], self.biases[name]) for name in ROWS}
        norms = {"norm": (self.norms[0], EPS), "mlp_norm": (self.norms[1], EPS)}
        if self.head_norms:
            norms |= {
                "query_norm": (self.head_norms[0], EPS),
                "key_norm": (self.head_norms[1], EPS),
            }
        return DecoderLayer(**linears | norms | {"heads": (H, K)} | changes)

    def linear(self, name, x):
        return KINDS[self.kinds[name]][1](x, self.weights[name], self.biases[name])

    def one_by_one(self, x, keys, values, mask, rotary):
        """What is captured, and the output."""
        first = rmsnorm_capture(x, self.norms[0], EPS)
        split = self.linear("qkv", first).split([H * D, K * D, K * D], dim=-1)
        query, key, value = (part.view(len(x), -1, D) for part in split)
        if self.head_norms:
            query = rmsnorm_capture(query.contiguous(), self.head_norms[0], EPS)
            key = rmsnorm_capture(key.contiguous(), self.head_norms[1], EPS)
        attended = decode_attention(
            query, keys, values, mask=mask, new=(key, value), rotary=rotary
        ).flatten(1)
        middle = x + self.linear("output", attended)
        second = rmsnorm_capture(middle, self.norms[1], EPS)
        gate, up = self.linear("gate_up", second).chunk(2, dim=-1)
        activated = swiglu_capture(gate, up)
        return (first, attended, second, activated), middle + self.linear("down", activated)


def problem(batch, columns, dtype=torch.bfloat16):
    x = inputs(batch, C, dtype=dtype, seed=20)
    keys, values = inputs(2, batch, K, columns + 3, D, dtype=dtype, seed=21)[:, :, :, 1:-2]
    cosine, sine = inputs(2, batch, D, dtype=dtype, seed=22)
    mask = torch.rand(batch, columns, generator=torch.Generator().manual_seed(5)) < 0.8
    mask[:, -1] = True
    return x, keys, values, mask, (cosine, sine)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "kinds", [*([kind] * 4 for kind in KINDS), ["dense", "2:4", "bitmap", "2:4-fp8"]], ids=str
)
@pytest.mark.parametrize(("batch", "columns"), [(1, 1), (3, 40), (17, 9)])
def test_the_bits_of_its_parts(kinds, dtype, normed, batch, columns):
    parts = Parts(kinds, dtype, normed)
    layer = parts.layer()
    x, keys, values, mask, rotary = problem(batch, columns, dtype)
    cache = keys.clone(), values.clone()
    captured, expected = parts.one_by_one(x, *cache, mask, rotary)
    buffers = tuple(CaptureBuffer(2 * batch, rows.shape[1], dtype=dtype) for rows in captured)
    active = torch.arange(batch) % 3 != 1
    y = layer(x, keys, values, mask=mask, rotary=rotary, buffers=buffers, active=active[:, None])
    assert torch.equal(y, expected)
    assert torch.equal(keys, cache[0]) and torch.equal(values, cache[1])
    for buffer, rows in zip(buffers, captured, strict=True):
        assert torch.equal(staged(buffer), rows[active])
    assert torch.equal(layer(x, keys, values, mask=mask, rotary=rotary), expected)
    assert expected.isfinite().all() and expected.float().std() > 0.5


@pytest.mark.parametrize("kinds", [["dense"] * 4, ["2:4", "bitmap", "2:4-fp8", "2:4"]], ids=str)
@pytest.mark.parametrize("batch", [8, 17, 3000])  # one thread does what lies between, or all
def test_any_number_of_threads(kinds, batch):
    layer = Parts(kinds, normed=True).layer()
    x, keys, values, mask, rotary = problem(batch, 30)
    found = []
    for threads in (1, 2, 5):
        with _native.use_threads(threads):
            found.append(layer(x, keys, values, mask=mask, rotary=rotary))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@every_bf16_set
def test_every_instruction_set(instruction_set):
    parts = Parts(["2:4", "dense", "bitmap", "2:4"], normed=True)
    x, keys, values, mask, rotary = problem(2, 30)
    expected = parts.one_by_one(x, keys.clone(), values.clone(), mask, rotary)[1]
    assert torch.equal(parts.layer()(x, keys, values, mask=mask, rotary=rotary), expected)


@pytest.mark.parametrize("batch", [1, 3, 3000])
def test_layers_in_one_call(batch):
    """Of other weights and formats, over columns inside longer caches, by several threads."""
    layers = [Parts(kinds, normed=True).layer() for kinds in (["dense"] * 4, ["2:4"] * 4)]
    layers.append(layers[0])
    x, _, _, mask, rotary = problem(batch, 5)
    longer = inputs(6, batch, K, 9, D, seed=30).to(torch.bfloat16)
    one_by_one, expected, captured = longer.clone(), x, []
    for layer, (keys, values) in zip(layers, one_by_one.view(3, 2, *longer.shape[1:]), strict=True):
        buffers = tuple(CaptureBuffer(batch, n, dtype=x.dtype) for n in (C, H * D, C, F))
        cache = keys[:, :, 2:7], values[:, :, 2:7]
        expected = layer(expected, *cache, mask=mask, rotary=rotary, buffers=buffers)
        captured += buffers
    rings = [CaptureBuffer(batch, b.features, dtype=x.dtype) for b in captured]
    rings[5] = None
    caches = KeyValueCaches([(longer[i], longer[i + 1]) for i in (0, 2, 4)])
    step = {"columns": (2, 5), "mask": mask, "rotary": rotary}
    before = x.clone()
    y = decode_layers(layers, x, caches, buffers=rings, **step)
    assert torch.equal(y, expected) and torch.equal(x, before)
    assert torch.equal(longer, one_by_one)
    for ring, rows in zip(rings, captured, strict=True):
        assert ring is None or torch.equal(staged(ring), staged(rows))
    with _native.use_threads(3):
        assert torch.equal(decode_layers(layers, x, caches, **step), expected)


def test_layers_and_caches_that_do_not_fit():
    layer = Parts(["dense"] * 4).layer()
    x, keys, values, mask, rotary = problem(2, 9)
    caches = KeyValueCaches([(keys, values)])
    with pytest.raises(ValueError, match="KeyValueCaches: expected all layers alike"):
        KeyValueCaches([(keys, values), (keys[:, :, :-1], values)])
    other = Parts(["dense"] * 4).layer(heads=(2, 1))
    for layers, step, message in (
        ([layer] * 2, {}, "caches of 2 layers, got 1"),
        ([layer], {"columns": (3, 7)}, "at least one of 9 columns, got 7 from 3 on"),
        ([layer], {"columns": (3, 0)}, "at least one of 9 columns"),
        ([layer], {"columns": (3, 6), "mask": mask}, r"mask bool \[2, 6\]"),
        ([layer], {"buffers": [None] * 3}, "4 buffers or none, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_layers(layers, x, caches, rotary=rotary, **step)
    twice = KeyValueCaches([(keys, values)] * 2)
    with pytest.raises(ValueError, match="layers of one hidden size"):
        decode_layers([layer, other], x, twice, rotary=rotary)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": (4, 3)}, r"heads \(H, K\) with K dividing H, got \(4, 3\)"),
        ({"heads": (5, 5)}, "qkv of 15 heads with an even D"),
        ({"output": (torch.zeros(C, C + 8).bfloat16(), None)}, r"output \[64, 64\]"),
        ({"down": (torch.zeros(C, F + 1).bfloat16(), None)}, r"gate_up \[258, 64\]"),
        ({"down": (torch.zeros(C, F).bfloat16(), torch.zeros(3))}, r"a bias \[64\] for down"),
        ({"mlp_norm": (torch.zeros(C + 1).bfloat16(), EPS)}, r"mlp_norm\[0\]"),
        ({"query_norm": (torch.zeros(D).bfloat16(), EPS)}, "query_norm and key_norm, or neither"),
    ],
)
def test_layers_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=f"DecoderLayer: .*{message}"):
        Parts(["dense"] * 4).layer(**change)


def test_weights_and_steps_that_do_not_fit():
    parts = Parts(["dense"] * 4)
    with pytest.raises(TypeError, match="down in bf16, fp16 or packed, got torch.float32"):
        parts.layer(down=(torch.zeros(C, F), None))
    layer = parts.layer()
    x, keys, values, mask, rotary = problem(2, 9)
    before = keys.clone()
    for changes, message in (
        ({"x": x[:, 1:]}, r"x contiguous \[B, 64\]"),
        ({"keys": keys[:1], "values": values[:1]}, "keys"),
        ({"keys": keys[:, :1], "values": values[:, :1]}, "keys of 2 heads"),
        ({"mask": mask[:, 1:]}, "mask bool"),
        ({"rotary": (rotary[0], rotary[1][:1])}, r"rotary\[1\]"),
        ({"buffers": (None,)}, "4 buffers or none"),
    ):
        step = {"x": x, "keys": keys, "values": values, "mask": mask, "rotary": rotary} | changes
        with pytest.raises(ValueError, match=message):
            layer(**step)
    with pytest.raises(TypeError, match="expected x in torch.bfloat16"):
        layer(x.float(), keys, values, rotary=rotary)
    assert torch.equal(keys, before)
