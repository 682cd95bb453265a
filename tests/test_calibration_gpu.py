"""On a GPU: Hessians of decoding under CUDA graphs against those of teacher forcing."""

import pytest
import torch
from conftest import build_model
from test_calibration import relative_error
from test_engines import random_prompts, run
from triton_interpreter import sized

from rac.calibration import (
    HessianCollector,
    Sequence,
    batches,
    collect_in_one_pass,
    find_groups,
    from_traces,
)
from rac.engines import Generation, Sampling
from rac.engines.attention import use_grouped_attention
from rac.engines.fused import fuse
from rac.engines.stacked import stack

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

SIZES = {"hidden_size": sized(256, 32), "intermediate_size": sized(384, 48)}
TOKENS = sized(20_000, 150)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)])
def test_decode_equals_teacher_forcing(architecture, dtype, bound):
    """Relative Frobenius error of every group's H, with flushes on the side stream."""
    model = build_model(architecture, **SIZES).to("cuda", dtype)
    use_grouped_attention(model)
    stack(model)
    fuse(model)
    groups = find_groups(model)
    decoded = HessianCollector(model, groups)
    decoded.slots = sized(256, 24)  # both halves of the ring are filled many times
    prompts = random_prompts(5, 40, 3, 12, 21, 30, 8)
    options = {"batch_size": sized(16, 3), "observer": decoded, "token_budget": TOKENS}
    generation = Generation(model, prompts, Sampling(sized(100, 20), 1.0), **options)
    with decoded.attached():
        traces = run(generation)
    decoded.finish()
    assert any(generation.decode_step.graphs.values())
    forced = HessianCollector(model, groups)
    sequences: list[Sequence] = from_traces(sorted(traces, key=lambda t: t.index))
    collect_in_one_pass(forced, list(batches(sequences)))
    assert decoded.tokens == forced.tokens and sum(decoded.tokens.values()) == TOKENS
    for name in decoded.hessians:
        error = relative_error(decoded.hessian(name).cpu(), forced.hessian(name).cpu().double())
        assert error <= bound, (name, error)
