"""Attention of one new token a sequence over its cache, on a CPU: ours against torch's.

    python -m benchmarks.bench_attention [--threads N] [--out benchmarks/results]

Heads of Qwen2.5-1.5B and 7B and of SmolLM2. Everything is on a CPU: on a GPU the engine leaves
attention to torch. "sdpa" is what transformers calls: keys and values copied for every query head,
then torch's fused attention with a mask; "matmul" views the heads of a group as the rows of one
matrix, and copies nothing. Ours also rotates and appends the new key, which neither baseline
counts. Bytes are the keys and values, read once. Outputs are compared before anything is timed.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.common import bench_options, device_seconds, readable_gbps, report
from rac_kernels import decode_attention

# Query heads, key/value heads, features of a head.
HEADS = {"Qwen2.5-1.5B": (12, 2, 128), "Qwen2.5-7B": (28, 4, 128), "SmolLM2-135M": (9, 3, 64)}
BATCHES = (1, 4, 16)
COLUMNS = (128, 1024, 4096)
DTYPES = (torch.bfloat16, torch.float32)


def sdpa(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """As transformers' sdpa function: every query head has its own copy of keys and values."""
    group = query.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(group, 1) for x in (keys, values))
    output = scaled_dot_product_attention(
        query[:, :, None], keys, values, attn_mask=mask[:, None, None]
    )
    return output[:, :, 0]


def matmul(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Two batched products and a float32 softmax."""
    batch, heads, width = query.shape
    grouped = query.view(batch, keys.shape[1], -1, width) * width**-0.5
    scores = torch.matmul(grouped, keys.mT).float()
    scores = scores.masked_fill_(~mask[:, None, None], float("-inf"))
    return torch.matmul(scores.softmax(-1).to(values.dtype), values).view(batch, heads, width)


def bench(model: str, batch: int, columns: int, dtype: torch.dtype, gbps: float, options) -> dict:
    """Check, then time in turns."""
    heads, groups, width = HEADS[model]
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    query, key, value = (random(batch, n, width) for n in (heads, groups, groups))
    cosine, sine = random(batch, width), random(batch, width)
    # More caches than fit in the processor's own memory, as a model's layers have.
    copies = max(2, (64 << 20) // (2 * batch * groups * columns * width * dtype.itemsize))
    caches = [random(2, batch, groups, columns, width) for _ in range(min(copies, 16))]
    mask = torch.ones(batch, columns, dtype=torch.bool)
    mask[:, : columns // 8] = False

    truth = sdpa(query.float(), *caches[0].float(), mask)
    for name, function in (("ours", decode_attention), ("matmul", matmul), ("sdpa", sdpa)):
        found = function(query, *caches[0], mask=mask).float()
        assert (found - truth).norm() <= 0.02 * truth.norm(), name

    def ours() -> None:
        for keys, values in caches:
            new, rotary = (key, value), (cosine, sine)
            decode_attention(query, keys, values, mask=mask, new=new, rotary=rotary)

    def baseline(function) -> None:
        for keys, values in caches:
            function(query, keys, values, mask)

    functions = {"ours": ours, "matmul": lambda: baseline(matmul), "sdpa": lambda: baseline(sdpa)}
    seconds = {
        name: total / len(caches)
        for name, total in device_seconds(functions, options.repeats, "cpu").items()
    }
    rate = caches[0].nbytes / seconds["ours"] / 1e9
    return {
        "op": "decode_attention",
        "device": "cpu",
        "dtype": str(dtype).removeprefix("torch."),
        "model": model,
        "B": batch,
        "columns": columns,
        "time_us": seconds["ours"] * 1e6,
        "matmul_us": seconds["matmul"] * 1e6,
        "sdpa_us": seconds["sdpa"] * 1e6,
        "speedup": min(seconds["matmul"], seconds["sdpa"]) / seconds["ours"],
        "gbps": rate,
        "readable_share": rate / gbps,
    }


def main() -> None:
    options = bench_options(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    gbps = readable_gbps()
    quick = slice(1) if options.quick else slice(None)
    for model in list(HEADS)[quick]:
        for batch in BATCHES[quick]:
            for columns in COLUMNS[quick]:
                for dtype in DTYPES:
                    row = bench(model, batch, columns, dtype, gbps, options)
                    report(row, options.out, "attention")


if __name__ == "__main__":
    main()
