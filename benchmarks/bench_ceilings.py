"""What the machine can do: the rates that everything else is measured against.

    python -m benchmarks.bench_ceilings [--device cuda] [--threads N] [--out benchmarks/results]

A row a ceiling, on random data: `copy` (bytes read plus bytes written) and `read` (a sum over a
large tensor) in GB/s; square matrix products in GFLOP/s (float32 without TF32, and on a GPU with
it); on a GPU microseconds of a launch from the host, of a graph's replay, and of a node in one.
"""

from collections.abc import Iterator

import torch

from benchmarks.common import (
    bench_options,
    copy_gbps,
    device_seconds,
    matmul_gflops,
    readable_gbps,
    report,
    time_once,
)

DTYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.bfloat16, torch.float16, torch.float32),
}
NODES = 1000


def products(device: str) -> Iterator[dict]:
    """Rates of a square product in each dtype."""
    for dtype in DTYPES[device.split(":")[0]]:
        name = str(dtype).removeprefix("torch.")
        yield {"what": "matmul", "dtype": name, "gflops": matmul_gflops(device=device, dtype=dtype)}
    if device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = True
        yield {"what": "matmul", "dtype": "tf32", "gflops": matmul_gflops(device=device)}
        torch.backends.cuda.matmul.allow_tf32 = False


def launches(device: str) -> Iterator[dict]:
    """Microseconds of launching a kernel that does next to nothing, alone and in a graph."""
    x = torch.zeros(1, device=device)

    def some(count: int) -> None:
        for _ in range(count):
            x.add_(1)

    some(1)
    seconds = min(time_once(lambda: some(NODES), device) for _ in range(5))
    yield {"what": "launch", "us": seconds / NODES * 1e6}
    replays = {}
    for count in (1, NODES):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            some(count)
        replays[count] = device_seconds({"replay": graph.replay}, 5, device)["replay"]
    yield {"what": "graph", "us": replays[1] * 1e6}
    yield {"what": "graph node", "us": (replays[NODES] - replays[1]) / (NODES - 1) * 1e6}


def main() -> None:
    options = bench_options(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = options.device

    def rows() -> Iterator[dict]:
        yield {"what": "copy", "gbps": copy_gbps(device)}
        yield {"what": "read", "gbps": readable_gbps(device)}
        yield from products(device)
        if device.startswith("cuda"):
            yield from launches(device)

    for row in rows():
        report({"op": "ceiling", "device": device} | row, options.out, "ceilings")


if __name__ == "__main__":
    main()
