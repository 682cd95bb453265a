"""Capturing: a producer that appends what it makes, against torch's own operations without capture.

    python -m benchmarks.bench_capture [--device cuda] [--threads N] [--out benchmarks/results]

Three ways of having RMSNorm's or SwiGLU's output, all from the same rows: `time_us` computes and
appends it in one kernel, `separate_us` appends it with a second one, `alone_us` does not append it;
the baseline is what transformers' modules run, which appends nothing either. `overhead` is what
appending costs, time / alone - 1. For capture_ the baseline is a copy of the rows. Bytes: every
input, output and ring row once. On a GPU a CUDA graph of CALLS calls is timed, so no launch is;
inputs rotate over ROTATED copies, and nine rows of ten are active.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.common import bench_options, median_seconds, report
from rac_kernels import CaptureBuffer, capture_, rmsnorm_capture, swiglu_capture

# D: hidden and ffn of R1-Distill-Qwen-1.5B and 7B; on a CPU those of SmolLM2-135M and of the 1.5B.
HIDDEN = {"cpu": (576, 1536), "cuda": (1536, 3584)}
FFN = {"cpu": (1536, 8960), "cuda": (8960, 18944)}
BATCHES = {"cpu": (1, 16, 64), "cuda": (1, 16, 64, 256)}
DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.bfloat16,)}
EPS, CALLS, ROTATED = 1e-6, 48, 4
REPLAYS = {"cpu": 1, "cuda": 10}  # of the graph, back to back, in one timing
BASELINES = {
    "rmsnorm_capture": "transformers' RMSNorm, no capture",
    "swiglu_capture": "silu(gate) * up, no capture",
    "capture_": "copy",
}


def torch_rmsnorm(x: Tensor, weight: Tensor) -> Tensor:
    """What LlamaRMSNorm and Qwen2RMSNorm run."""
    wide = x.to(torch.float32)
    variance = wide.pow(2).mean(-1, keepdim=True)
    return weight * (wide * torch.rsqrt(variance + EPS)).to(x.dtype)


def contenders(op: str, weight: Tensor, buffer: CaptureBuffer, active: Tensor) -> dict:
    """The ways of one op, each a function of two inputs [B, D]."""
    ring = {"buffer": buffer, "active": active}

    def then_capture(y: Tensor) -> Tensor:
        capture_(buffer, y, active)
        return y

    if op == "rmsnorm_capture":
        return {
            "fused": lambda x, _: rmsnorm_capture(x, weight, EPS, **ring),
            "separate": lambda x, _: then_capture(rmsnorm_capture(x, weight, EPS)),
            "alone": lambda x, _: rmsnorm_capture(x, weight, EPS),
            "baseline": lambda x, _: torch_rmsnorm(x, weight),
        }
    if op == "swiglu_capture":
        return {
            "fused": lambda x, up: swiglu_capture(x, up, **ring),
            "separate": lambda x, up: then_capture(swiglu_capture(x, up)),
            "alone": lambda x, up: swiglu_capture(x, up),
            "baseline": lambda x, up: nn.functional.silu(x) * up,
        }
    return {"fused": lambda x, _: then_capture(x), "baseline": lambda x, _: x.clone()}


def repeated(function: Callable, inputs: list[tuple[Tensor, Tensor]], buffer: CaptureBuffer):
    """CALLS calls over rotating inputs into an empty buffer; on a GPU as a CUDA graph."""

    def run() -> None:
        buffer.state.zero_()
        for call in range(CALLS):
            function(*inputs[call % len(inputs)])

    def run_eagerly() -> None:
        buffer.reserved = 0
        run()

    run_eagerly()
    if buffer.device.type != "cuda":
        return run_eagerly
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return lambda: [graph.replay() for _ in range(REPLAYS["cuda"])]


def check(ways: dict, inputs: list[tuple[Tensor, Tensor]], buffer: CaptureBuffer, active: Tensor):
    """All ways give the same value; those that capture put its active rows in the ring."""
    truth = ways["baseline"](*inputs[0])
    for name, way in ways.items():
        buffer.state.zero_()
        buffer.reserved = 0
        value = way(*inputs[0])
        tolerance = {"rtol": 4 * torch.finfo(truth.dtype).eps, "atol": 1e-6}
        torch.testing.assert_close(value, truth, **tolerance if name != "baseline" else {})
        if name in ("fused", "separate"):
            assert torch.equal(buffer.rows[0, : int(buffer.state[0])], value[active]), name


@torch.inference_mode()
def bench(op: str, features: int, batch: int, dtype: torch.dtype, options) -> dict:
    """Check the ways of one op against each other, then time them in turns."""
    torch.manual_seed(0)
    device = options.device
    pairs = torch.randn(ROTATED, 2, batch, features, device=device).to(dtype)
    inputs = [(x, up) for x, up in pairs]
    weight = torch.randn(features, device=device).to(dtype)
    active = torch.rand(batch, device=device) < 0.9
    buffer = CaptureBuffer(batch * CALLS, features, dtype=dtype, device=device)
    ways = contenders(op, weight, buffer, active)
    check(ways, inputs, buffer, active)
    runs = {name: repeated(way, inputs, buffer) for name, way in ways.items()}
    seconds = median_seconds(runs, options.repeats, device)
    calls = CALLS * REPLAYS[device.split(":")[0]]
    us = {name: value / calls * 1e6 for name, value in seconds.items()}
    tensors = {"rmsnorm_capture": 3, "swiglu_capture": 4, "capture_": 2}[op]
    moved = tensors * batch * features * dtype.itemsize
    row = {
        "op": op,
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "D": features,
        "B": batch,
        "time_us": us["fused"],
        "baseline": BASELINES[op],
        "baseline_us": us["baseline"],
        "speedup": us["baseline"] / us["fused"],
        "bytes": moved,
        "gbps": moved / us["fused"] / 1e3,
    }
    if "alone" in us:
        row |= {"separate_us": us["separate"], "alone_us": us["alone"]}
        row["overhead"] = us["fused"] / us["alone"] - 1
    return row


def main() -> None:
    options = bench_options(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    kind = options.device.split(":")[0]
    widths = {"rmsnorm_capture": HIDDEN[kind], "swiglu_capture": FFN[kind]}
    widths["capture_"] = tuple(dict.fromkeys(HIDDEN[kind] + FFN[kind]))
    for op, sizes in widths.items():
        for features in sizes[:1] if options.quick else sizes:
            for batch in BATCHES[kind][:2] if options.quick else BATCHES[kind]:
                for dtype in DTYPES[kind]:
                    report(bench(op, features, batch, dtype, options), options.out, "capture")


if __name__ == "__main__":
    main()
