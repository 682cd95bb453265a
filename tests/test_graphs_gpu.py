"""Every op that a CUDA graph may hold: recorded once, replayed on other inputs, the same bits.

Ops that read something back (packing and factoring say what they refuse) cannot be recorded. The
captures, nucleus sampling and the linears in CUDA have tests of their own, with more around them.
"""

import pytest
import torch
from triton_interpreter import sized

from rac_kernels import Pattern, hessian_accumulate_, linear_2to4, pack_2to4, symmetrize_

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
pytest.importorskip("triton", reason="triton is not installed")

from rac_kernels._triton import select_mask as mask_kernels  # noqa: E402
from rac_kernels._triton import sparsegpt as solve_kernels  # noqa: E402

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
ROWS, COLUMNS = sized(1500, 20), sized(1160, 72)  # off every block


def accumulate(dtype):
    x = torch.empty(ROWS, COLUMNS, device="cuda", dtype=dtype)
    return x, lambda: hessian_accumulate_(torch.zeros(COLUMNS, COLUMNS, device="cuda"), x)


def accumulate_weighted(dtype):
    x = torch.empty(ROWS, COLUMNS, device="cuda", dtype=dtype)
    weight = torch.linspace(0, 1, ROWS, device="cuda")
    hessian = torch.empty(COLUMNS, COLUMNS, device="cuda")
    return x, lambda: hessian_accumulate_(hessian.zero_(), x, row_weight=weight)


def symmetrize(dtype):
    x = torch.empty(COLUMNS, COLUMNS, device="cuda")
    return x, lambda: symmetrize_(x.clone())


def mask(pattern, per, score="value"):
    def make(dtype):
        x = torch.empty(ROWS, COLUMNS, device="cuda", dtype=dtype)
        more = {}
        if score == "wanda":
            more = {"score": score, "diagonal": torch.rand(COLUMNS, device="cuda"), "prune": True}
        parsed = Pattern.parse(pattern)
        return x, lambda: mask_kernels.select_mask(x, parsed, per, 128, **more)

    return make


def solve(pattern):
    def make(dtype):
        weight = torch.empty(ROWS, COLUMNS, device="cuda", dtype=dtype)
        upper = torch.eye(COLUMNS, device="cuda") + torch.rand(COLUMNS, COLUMNS).cuda().triu() / 9
        dead = torch.zeros(COLUMNS, dtype=torch.bool, device="cuda")
        job = ([weight], upper.mT.contiguous().mT, dead, Pattern.parse(pattern))
        options = {"block_size": 32, "compat": False, "masks": None}
        return weight, lambda: solve_kernels.sparsegpt(*job, **options)

    return make


def sparse_linear(impl):
    def make(dtype):
        if impl == "cusparselt" and (
            not torch.backends.cusparselt.is_available() or dtype == torch.float32
        ):
            pytest.skip("cuSPARSELt takes bf16 and fp16, where this torch has it")
        weight = torch.randn(64, 128, device="cuda").view(64, 32, 4)
        weight[..., 2:] = 0
        packed = pack_2to4(
            weight.view(64, 128).to(torch.bfloat16 if impl == "reference" else dtype)
        )
        x = torch.empty(70, 128, device="cuda", dtype=dtype)
        return x, lambda: linear_2to4(x, packed, impl=impl)

    return make


OPS = {
    "accumulate": accumulate,
    "accumulate weighted": accumulate_weighted,
    "symmetrize": symmetrize,
    "mask 2:4": mask("2:4", "row"),
    "mask 4:8 wanda": mask("4:8", "row", "wanda"),
    "mask of rows": mask("0.5", "row"),
    "mask of a layer": mask("0.5", "layer"),
    "solve 0.5": solve("0.5"),
    "solve 2:4": solve("2:4"),
    "linear reference": sparse_linear("reference"),
    "linear cusparselt": sparse_linear("cusparselt"),
}


def tensors(result):
    parts = result if isinstance(result, tuple | list) else [result]
    flat = [p for part in parts for p in (part if isinstance(part, tuple) else [part])]
    return [part for part in flat if part is not None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
@torch.inference_mode()
def test_replayed_in_a_graph_as_run_eagerly(name, dtype):
    x, run = OPS[name](dtype)
    x.copy_(torch.randn(x.shape, device="cuda"))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()  # compiles
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = tensors(run())
    for seed in range(2):
        generator = torch.Generator("cuda").manual_seed(seed)
        x.copy_(torch.randn(x.shape, generator=generator, device="cuda"))
        graph.replay()
        for replayed, eager in zip(recorded, tensors(run()), strict=True):
            assert (
                torch.equal(replayed.tril(), eager.tril())
                if name.startswith("accumulate")
                else torch.equal(replayed, eager)
            )
