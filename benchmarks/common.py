"""What every benchmark shares: interleaved medians, the machine's description, result rows."""

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent


def median_seconds(
    functions: dict[str, Callable[[], Any]], repeats: int = 5, device: str = "cpu"
) -> dict[str, float]:
    """Median wall-clock seconds of each function, after one call of each that is not counted.

    They take turns, so that whatever else the machine does falls on all of them alike.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            wait_for(device)
            start = time.perf_counter()
            function()
            wait_for(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def wait_for(device: str) -> None:
    """Wait for what was launched on a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def matmul_gflops(size: int = 2048, device: str = "cpu") -> float:
    """Measured GFLOP/s of a float32 `size`^3 matrix product: the ceiling to compare with."""
    a, b = torch.randn(2, size, size, device=device)
    return 2 * size**3 / median_seconds({"mm": lambda: a @ b}, 5, device)["mm"] / 1e9


@cache
def environment() -> dict[str, Any]:
    """Machine, processor, GPU, versions and commit: what a number means nothing without."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "machine": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "commit": _commit(),
    }


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append `row` to a JSON-lines file, with the UTC date, the threads and the environment."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    row = row | {"date": now, "threads": torch.get_num_threads()} | environment()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def bench_options(description: str) -> argparse.ArgumentParser:
    """Options of every kernel benchmark: --out, --device, --threads, --repeats, --quick."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, help="folder to append result rows to; none: print only"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="the smallest shape alone")
    return parser


def report(row: dict[str, Any], out: Path | None, name: str) -> None:
    """Print a row and, where a folder is given, append it to `name`.jsonl there."""
    shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
    print(json.dumps(shown), flush=True)
    if out is not None:
        append_row(out / f"{name}.jsonl", row)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} x {len(names)}" if names else platform.processor()


def _commit() -> str:
    """Abbreviated commit, with + where the working tree differs from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
