"""What the docstring of hessian_accumulate_ says about errors: bound, bias, bf16, definiteness."""

import pytest
import torch
from numeric import EPS32, activations, damped, hessian64, native, sum_bound
from triton_interpreter import DEVICE

from rac.assets.train import documents
from rac.calibration import find_groups
from rac.calibration.groups import input_hooks
from rac.models import load_model, load_tokenizer
from rac_kernels import factor_hessian, hessian_accumulate_, symmetrize_

# Every implementation, on the device it is for; Triton's interpreter is too slow for these sizes.
on_gpu = pytest.mark.skipif(
    DEVICE == "cpu", reason="no GPU: a million tokens take the interpreter hours"
)
IMPLEMENTATIONS = [
    ("reference", "cpu"),
    pytest.param("native", "cpu", marks=native),
    pytest.param("triton", "cuda", marks=[on_gpu, pytest.mark.gpu]),
]
every_implementation = pytest.mark.parametrize(("impl", "device"), IMPLEMENTATIONS)


@every_implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("flush", [2048, 1 << 20])
def test_a_million_tokens_are_summed_without_bias(impl, device, dtype, flush):
    """Unbiased rounding of n additions strays by about sqrt(n) / 3 units, a biased one by n / 4.

    A sum that grows steadily is half its final size on average, and rounding to nearest errs by
    u / sqrt(3) of that. The CPU adds chunks of thousands; tensor cores lose up to 2^-23 at each of
    16384 / 16 steps before a segment is added in float32, of a segment again half its size.
    """
    features, tokens = 16, 1 << 20
    x = activations(tokens, features).to(dtype)
    hessian = torch.zeros(features, features, device=device)
    for part in x.to(device).split(flush):
        hessian_accumulate_(hessian, part, impl=impl)
    error = (hessian.cpu().double() - hessian64(x)).tril()
    size = hessian64(x.abs())
    assert bool((error.abs() <= 2 * sum_bound(x)).all())
    steps = 1024 if impl == "triton" else 64
    assert float((error / size).abs().max()) < max(steps, 128) * EPS32
    assert abs(float((error / size).diagonal().mean())) < steps * EPS32


@pytest.fixture(scope="module")
def real_activations():
    """name -> inputs [T, D] of the embedded model's first and last linears, on its own text."""
    model = load_model("embedded", "cpu", "float32")
    groups = find_groups(model)
    groups = groups[:4] + groups[-2:]
    modules = dict(model.named_modules())
    readers = {group.name: modules[group.linears[0]] for group in groups}
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in readers}
    texts = documents(load_tokenizer("embedded"), seed=0)
    with input_hooks(readers, lambda name, x: seen[name].append(x[0])), torch.no_grad():
        for _ in range(8):
            model(torch.tensor([next(texts)]))
    return {name: torch.cat(parts) for name, parts in seen.items()}


@every_implementation
def test_real_activations_give_a_definite_hessian(impl, device, real_activations):
    for name, x in real_activations.items():
        features = x.shape[1]
        for rows in (x, x.bfloat16()):
            hessian = torch.zeros(features, features, device=device)
            hessian_accumulate_(hessian, rows.to(device), impl=impl)
            hessian = symmetrize_(hessian).cpu()
            assert bool(((hessian - hessian64(rows)).abs() <= 2 * sum_bound(rows)).all()), name
            assert factor_hessian(hessian).attempts == 1, name
            half = 0.005 * hessian.diagonal().double().mean() * torch.eye(features)
            torch.linalg.cholesky(damped(hessian, 0.01) - half)  # fails unless definite


def test_bf16_activations_differ_by_their_own_rounding_alone(real_activations):
    """|fl(x) fl(y) - x y| <= (2 u + u^2) |x y|, u = 2^-9; summed, they mostly cancel."""
    unit = 2.0**-9
    for name, x in real_activations.items():
        features = x.shape[1]
        exact = hessian64(x)
        rounded = symmetrize_(hessian_accumulate_(torch.zeros(features, features), x.bfloat16()))
        error = (rounded - exact).abs()
        bound = (2 * unit + unit**2) * hessian64(x.abs()) + 2 * sum_bound(x.bfloat16())
        assert bool((error <= bound).all()), name
        assert float(error.norm() / exact.norm()) < unit, name
