"""Draws from vocabularies of real models on a GPU, and inside a CUDA graph."""

import pytest
import torch
from nucleus import Truth, check, random_logits
from triton_interpreter import sized

from rac_kernels import nucleus_sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 152064), (128, 49152), (3, 151937)])
@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0])  # broad and peaked
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.95), (1.0, 0.999)])
def test_gpu_vocabularies_equal_float64(dtype, shape, spread, temperature, top_p):
    logits = random_logits(*shape, spread).to("cuda", dtype)  # judged on the GPU as well
    for impl in ("triton", "reference"):
        check(impl, "cuda", logits, temperature=temperature, top_p=top_p)


def test_gpu_chooses_triton_and_draws_inside_a_cuda_graph():
    batch, vocabulary = sized(64, 2), sized(50000, 700)
    logits = random_logits(batch, vocabulary).cuda()
    uniform = torch.rand(batch, device="cuda")
    eager = nucleus_sample(logits, uniform, temperature=0.6, top_p=0.95)
    assert torch.equal(
        eager, nucleus_sample(logits, uniform, temperature=0.6, top_p=0.95, impl="triton")
    )
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ids = nucleus_sample(logits, uniform, temperature=0.6, top_p=0.95)
    for seed in range(3):
        logits.copy_(random_logits(batch, vocabulary, seed=seed))
        uniform.uniform_()
        graph.replay()
        expected = nucleus_sample(logits, uniform, temperature=0.6, top_p=0.95)
        assert torch.equal(ids, expected)
        Truth(logits, 0.6, 0.95).assert_allows(ids, uniform)
