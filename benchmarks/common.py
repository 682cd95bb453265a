"""What every benchmark shares: interleaved medians, the machine's description, result rows."""

import argparse
import ctypes
import datetime
import json
import math
import os
import platform
import random
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from rac_kernels import native_status

ROOT = Path(__file__).resolve().parent.parent
# What ceilings are measured with: the side of a square product, and bytes far beyond any cache.
MATMUL_SIZE = {"cpu": 4096, "cuda": 8192}
COPY_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}


def median_seconds(
    functions: dict[str, Callable[[], Any]],
    repeats: int = 5,
    device: str = "cpu",
    budget: float = math.inf,
) -> dict[str, float]:
    """Median wall-clock seconds of each function, after one call of each that is not counted.

    They take turns, each turn in another order, so that whatever else the machine does, and what a
    function leaves to the next, falls on all of them alike. A function whose calls would take more
    than `budget` seconds is repeated less; where its first call alone does, that is the one that
    counts.
    """
    first = {name: time_once(function, device) for name, function in functions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    order, shuffle = list(functions), random.Random(0).shuffle
    for turn in range(repeats):
        shuffle(order)
        for name in order:
            if (turn + 1) * first[name] <= budget:
                seconds[name].append(time_once(functions[name], device))
    return {name: statistics.median(times or [first[name]]) for name, times in seconds.items()}


def time_once(function: Callable[[], Any], device: str) -> float:
    """Wall-clock seconds of one call, to its end on the device."""
    wait_for(device)
    start = time.perf_counter()
    function()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: str) -> None:
    """Wait for what was launched on a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def device_seconds(
    functions: dict[str, Callable[[], Any]], repeats: int, device: str, budget: float | None = None
) -> dict[str, float]:
    """Median seconds of each function on the device, without what launching it costs.

    On a GPU events are put around enough calls for 5 ms; slow functions are repeated less, within
    about `budget` seconds each, by default 2. On a CPU this is :func:`median_seconds`.
    """
    if not device.startswith("cuda"):
        return median_seconds(functions, repeats, budget=budget or math.inf)
    calls, rounds = {}, {}
    for name, function in functions.items():
        function()  # compiles
        seconds = time_once(function, device)
        calls[name] = max(1, min(50, round(0.005 / seconds)))
        rounds[name] = max(1, min(repeats, round((budget or 2.0) / (seconds * calls[name]))))
    seconds = {name: [] for name in functions}
    for turn in range(repeats):
        for name, function in functions.items():
            if turn < rounds[name]:
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                for _ in range(calls[name]):
                    function()
                end.record()
                end.synchronize()
                seconds[name].append(start.elapsed_time(end) / 1e3 / calls[name])
    return {name: statistics.median(times) for name, times in seconds.items()}


def peak_bytes(function: Callable[[], Any], device: str = "cpu") -> int | None:
    """Most bytes that a call, its result included, adds to those there were; None if not known."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory would be used again, and not be seen
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident
    except (OSError, AttributeError):
        return None
    before = _resident("VmRSS")
    function()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def matmul_gflops(
    size: int | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> float:
    """Measured GFLOP/s of a `size`^3 matrix product, the best of three medians: a ceiling.

    float32 is float32, never TF32. The default size is that of MATMUL_SIZE.
    """
    size = size or MATMUL_SIZE[device.split(":")[0]]
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    seconds = min(device_seconds({"mm": lambda: a @ b}, 3, device)["mm"] for _ in range(3))
    return 2 * size**3 / seconds / 1e9


def copy_gbps(device: str = "cpu") -> float:
    """Measured GB/s of a copy far larger than any cache, bytes read plus bytes written."""
    size = COPY_BYTES[device.split(":")[0]]
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    seconds = device_seconds({"copy": lambda: target.copy_(source)}, 5, device)["copy"]
    return 2 * size / seconds / 1e9


def readable_gbps(device: str = "cpu") -> float:
    """Measured GB/s of reading a tensor far larger than any cache, the best of three medians."""
    size = COPY_BYTES[device.split(":")[0]]
    source = torch.randn(size // 4, device=device)
    medians = (device_seconds({"sum": source.sum}, 7, device)["sum"] for _ in range(3))
    return size / min(medians) / 1e9


def largest_cache_bytes() -> int:
    """Of this processor, as Linux says; 0 where it does not."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((int(size.read_text().strip().removesuffix("K")) << 10 for size in sizes), default=0)


@cache
def environment() -> dict[str, Any]:
    """Machine, processor, GPU, versions and commit: what a number means nothing without."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "machine": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "instruction_set": _instruction_set(),
        "pinned": os.environ.get("OMP_PROC_BIND"),
        "gpu": gpu,
        "driver": _driver() if gpu else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _triton(),
        "cuda": torch.version.cuda,
        "cusparselt": _cusparselt() if gpu else None,
        "commit": _commit(),
    }


def _instruction_set() -> str | None:
    """What our C++ kernels use, None where there are none."""
    found = re.fullmatch(r"ok \((\w+)\)", native_status()["cpu"])
    return found and found[1]


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


def _driver() -> str | None:
    """Version of the NVIDIA driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout.splitlines() or [None])[0]


def _triton() -> str | None:
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def _cusparselt() -> int | None:
    """Version of the cuSPARSELt that torch would call, 0.8.0 as 800; None without one."""
    backend = getattr(torch.backends, "cusparselt", None)
    return backend.version() if backend and backend.is_available() else None


def _commit() -> str:
    """Abbreviated commit, with + where the working tree differs from it; COMMIT without git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return os.environ.get("COMMIT", "unknown")
    return done.stdout.strip() or os.environ.get("COMMIT", "unknown")
