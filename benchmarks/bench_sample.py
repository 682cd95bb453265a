"""Nucleus sampling: ours against sorting the vocabulary and an argmax over exponential noise.

    python -m benchmarks.bench_sample [--device cuda] [--threads N] [--out benchmarks/results]

Both draw one id a row at temperature 0.6 and top_p 0.95. Random logits of two spreads: "peaked",
where a few dozen ids hold the mass, as a language model's mostly do, and "broad", where it
takes tens of thousands. Bytes: the logits twice, as their maximum has to be known first. Checked
before it is timed: what ours draws is in the nucleus that a sort finds. On a GPU a CUDA graph of
one draw is timed, so no launch is.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common import bench_options, device_seconds, report
from rac_kernels import nucleus_sample

# V: SmolLM2 and Qwen2.5.
VOCABULARIES = (49152, 151936)
BATCHES = {"cpu": (1, 8, 64), "cuda": (1, 8, 64, 128)}
DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float32, torch.bfloat16)}
SPREADS = {"peaked": 4.0, "broad": 0.5}
TEMPERATURE, TOP_P = 0.6, 0.95


def sorted_nucleus(logits: Tensor) -> Tensor:
    """Probabilities [B, V] with zeros outside of the nucleus."""
    probabilities = torch.softmax(logits.float() / TEMPERATURE, -1)
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(-1) - ordered >= TOP_P
    return torch.zeros_like(ordered).scatter(-1, order, ordered.masked_fill(outside, 0))


def baseline(logits: Tensor) -> Tensor:
    """A draw without a cumulative sum: the argmax of p / Exp(1)."""
    probabilities = sorted_nucleus(logits)
    noise = torch.empty_like(probabilities).exponential_()
    return (probabilities / noise.clamp_(min=torch.finfo(noise.dtype).tiny)).argmax(-1)


def ours(logits: Tensor) -> Tensor:
    """With the numbers that it needs, one a row."""
    uniform = torch.rand(len(logits), device=logits.device)
    return nucleus_sample(logits, uniform, temperature=TEMPERATURE, top_p=TOP_P)


def launched(function: Callable[[], Tensor], device: str) -> Callable[[], object]:
    """The function; on a GPU the replay of its CUDA graph."""
    if not device.startswith("cuda"):
        return function
    function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def bench(batch: int, vocabulary: int, dtype: torch.dtype, kind: str, options) -> dict:
    """Check, then time in turns."""
    generator = torch.Generator().manual_seed(0)
    logits = SPREADS[kind] * torch.randn(batch, vocabulary, generator=generator)
    logits = logits.to(options.device, dtype)
    kept = sorted_nucleus(logits)
    drawn = kept.gather(-1, ours(logits)[:, None])
    assert int((drawn == 0).sum()) <= batch // 32, "outside of the nucleus"  # its border is rounded
    functions = {"ours": lambda: ours(logits), "baseline": lambda: baseline(logits)}
    functions = {name: launched(run, options.device) for name, run in functions.items()}
    seconds = device_seconds(functions, options.repeats, options.device)
    return {
        "op": "nucleus_sample",
        "device": options.device,
        "dtype": str(dtype).removeprefix("torch."),
        "B": batch,
        "V": vocabulary,
        "logits": kind,
        "nucleus": int((kept > 0).sum(-1).float().mean()),
        "time_us": seconds["ours"] * 1e6,
        "baseline": "softmax, sort, cumsum, scatter, argmax of p / Exp(1)",
        "baseline_us": seconds["baseline"] * 1e6,
        "speedup": seconds["baseline"] / seconds["ours"],
        "gbps": 2 * logits.nbytes / seconds["ours"] / 1e9,
    }


def main() -> None:
    options = bench_options(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    device = options.device.split(":")[0]
    for vocabulary in VOCABULARIES[:1] if options.quick else VOCABULARIES:
        for batch in BATCHES[device][:1] if options.quick else BATCHES[device]:
            for dtype in DTYPES[device]:
                for kind in SPREADS:
                    row = bench(batch, vocabulary, dtype, kind, options)
                    report(row, options.out, "sample")


if __name__ == "__main__":
    main()
