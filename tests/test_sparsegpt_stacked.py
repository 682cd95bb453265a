"""Matrices that share a Hessian are solved together, and each as if it were alone."""

import pytest
import torch
from numeric import layer, native
from triton_interpreter import DEVICE, needs_triton

from rac_kernels import HessianFactor, Pattern, _native, factor_hessian, sparsegpt

on_a_gpu = [pytest.mark.gpu] if DEVICE == "cuda" else []
implementation = pytest.mark.parametrize(
    "impl",
    [
        "reference",
        pytest.param("native", marks=native),
        pytest.param("triton", marks=[needs_triton, *on_a_gpu]),
    ],
)


def stack(columns=132, rows=(20, 1, 9), scales=(1.0, 3.0, 0.1), impl="reference"):
    """Weights of different sizes and scales, their factor, on the device of the implementation."""
    device = DEVICE if impl == "triton" else "cpu"
    weight, hessian = layer(sum(rows), columns)
    weights = [w * s for w, s in zip(weight.split(rows), scales, strict=True)]
    factor = factor_hessian(hessian)
    factor = HessianFactor(factor.upper.to(device), 0.01, 1, factor.dead.to(device))
    return [w.to(device) for w in weights], factor


@implementation
@pytest.mark.parametrize("rule", ["0.5", "0.3 compat", "2:4", "given"])
def test_each_is_solved_as_if_alone(impl, rule):
    weights, factor = stack(72, impl=impl)
    options = {"compat": "compat" in rule, "impl": impl, "block_size": 32}
    pattern, masks = None, [None] * len(weights)
    if rule == "given":
        masks = [(torch.rand(w.shape[::-1]) < 0.5).to(w.device).mT for w in weights]
        together = sparsegpt(weights, factor, None, mask=masks, **options)
    else:
        pattern = Pattern.parse(rule.split()[0])
        together = sparsegpt(weights, factor, pattern, **options)
    assert isinstance(together, list) and len(together) == 3
    for weight, mask, (pruned, kept, loss) in zip(weights, masks, together, strict=True):
        alone, alone_kept, alone_loss = sparsegpt(weight, factor, pattern, mask=mask, **options)
        assert torch.equal(kept, alone_kept)
        assert mask is None or torch.equal(kept, mask)
        assert torch.equal(pruned != 0, kept)
        if impl == "triton":  # the segments' tiles differ, the loss is summed in another order
            torch.testing.assert_close(pruned, alone, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(loss, alone_loss, rtol=1e-4, atol=0)
        else:
            assert torch.equal(pruned, alone)
            assert torch.equal(loss, alone_loss)
        assert loss.shape == () and loss.dtype == torch.float64


@native
@pytest.mark.parametrize("rule", ["0.5", "0.3 compat", "2:4", "given"])
def test_two_blocks_at_a_time_are_as_one(rule):
    """Blocks of 8 columns are solved two at a time from 15 * 4 * 8 rows and columns on."""
    weight, hessian = layer(75, 456)  # 57 blocks, the last of which is alone
    factor, few = factor_hessian(hessian), weight[:20]
    pattern, masks = None, [None] * 2
    if rule == "given":
        masks = [torch.rand(20, 456) < 0.5, torch.rand(55, 456) < 0.5]
    else:
        pattern = Pattern.parse(rule.split()[0])
    options = {"compat": "compat" in rule, "block_size": 8, "impl": "native"}
    with _native.use_threads(1):
        alone = sparsegpt(few, factor, pattern, mask=masks[0], **options)
    for threads in (1, 2, 3):
        with _native.use_threads(threads):
            masks_of = None if rule != "given" else masks
            both = sparsegpt([few, weight[20:]], factor, pattern, mask=masks_of, **options)
        for one, other in zip(both[0], alone, strict=True):
            assert torch.equal(one, other)


@implementation
def test_thresholds_are_each_matrixs_own(impl):
    weights, factor = stack(impl=impl)  # by one threshold, the third would lose all its weights
    for pruned, kept, _ in sparsegpt(weights, factor, Pattern(0.5), impl=impl):
        for part in kept.split(128, dim=1):
            assert int((~part).sum()) == round(part.numel() * 0.5)
        assert torch.equal(pruned != 0, kept)


@implementation
def test_one_in_a_list_is_a_list(impl):
    weights, factor = stack(columns=136, rows=(9,), scales=(1.0,), impl=impl)
    for dtype in (torch.float32, torch.bfloat16):
        weight = weights[0].to(dtype)
        ((pruned, kept, loss),) = sparsegpt([weight], factor, Pattern(0.5), impl=impl)
        alone = sparsegpt(weight, factor, Pattern(0.5), impl=impl)
        assert torch.equal(pruned, alone[0]) and pruned.dtype == dtype
        assert torch.equal(kept, alone[1])
        assert torch.equal(loss, alone[2])


def test_weights_are_not_changed():
    weights, factor = stack()
    before = [weight.clone() for weight in weights]
    sparsegpt(tuple(weights), factor, Pattern(0.5))
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))


def test_bad_input_is_named():
    weights, factor = stack(columns=12, rows=(4, 3), scales=(1.0, 1.0))
    masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
    for message, given, mask in [
        ("at least one weight, got an empty list", [], None),
        ("weights of one dtype, got torch.bfloat16", [weights[0], weights[1].bfloat16()], None),
        ("a list of 2 masks for as many weights, got 1", weights, masks[:1]),
        ("a list of 2 masks for as many weights, got a tensor", weights, masks[0]),
        (r"expected mask \[3, 12\], got \[4, 12\]", weights, [masks[0], masks[0]]),
        (r"a factor \[11, 11\] for weight \[3, 11\]", [weights[0], weights[1][:, :11]], None),
        ("a finite weight, got NaN or Inf", [weights[0], weights[1] / 0], None),
    ]:
        with pytest.raises(ValueError, match="sparsegpt: .*" + message):
            sparsegpt(given, factor, None if mask is not None else Pattern(0.5), mask=mask)
    with pytest.raises(TypeError, match="expected a tensor for weight, got NoneType"):
        sparsegpt([weights[0], None], factor, Pattern(0.5))
    with pytest.raises(TypeError, match="expected a tensor for weight, got str"):
        sparsegpt("q_proj", factor, Pattern(0.5))


@native
@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_matrices_of_several_heights_on_several_threads(pattern):
    """Another height has other shares of the threads: none may begin before all have ended."""
    weight, hessian = layer(1536, 256)
    factor, parts = factor_hessian(hessian), list(weight.split([1024, 256, 256]))
    torch.set_num_threads(2)
    try:
        for _ in range(5):
            stacked = sparsegpt(parts, factor, Pattern.parse(pattern), impl="native")
            for part, (_, mask, _) in zip(parts, stacked, strict=True):
                alone = sparsegpt(part, factor, Pattern.parse(pattern), impl="native")[1]
                assert torch.equal(mask, alone)
    finally:
        torch.set_num_threads(1)
