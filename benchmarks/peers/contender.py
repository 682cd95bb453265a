"""What every contender's script shares: its command line, its memory and its result file.

Standard library and torch alone, so that it runs in any contender's own environment. A contender
gets a model folder and calibration ids, prunes every linear of the decoder layers in float32, and
writes `weights.safetensors` (`<linear>.weight`, bf16) and `result.json` into its folder.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def parse_options(description: str) -> argparse.Namespace:
    """The command line that bench_peers.py calls every contender with."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--ids", type=Path, required=True, help="JSON lines, a list of ids each")
    parser.add_argument("--traces", type=Path, help="the same ids as a trace file of rac")
    parser.add_argument("--pattern", default="0.5", help="0.5, or 2:4")
    parser.add_argument("--propagate", choices=("dense", "pruned"), default="dense")
    parser.add_argument("--collector", default="auto", help="of rac alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and result")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    return options


def read_ids(path: Path) -> list[list[int]]:
    """The calibration's sequences of token ids."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def memory_bytes(field: str) -> int:
    """Resident bytes of this process: field "VmRSS" now, "VmHWM" at its peak (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


class Stopwatch:
    """Sums the seconds spent inside `running` blocks and wrapped functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the seconds of a `with` block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def wrap(self, function: Callable) -> Callable:
        """`function`, its seconds counted."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.running():
                return function(*args, **kwargs)

        return timed


def write_result(
    out: Path,
    total: Stopwatch,
    solver: Stopwatch,
    loaded: int,
    packages: list[str],
    peak: int | None = None,
) -> None:
    """Write `result.json`: seconds (calibration and solving), memory in bytes, versions.

    Call it when the solving ends; `peak` is the bytes at that moment where that has passed.
    """
    result = {
        "seconds": total.seconds,
        "solver_seconds": solver.seconds,
        "loaded_memory_bytes": loaded,
        "peak_memory_bytes": peak or memory_bytes("VmHWM"),
        "contender_versions": {name: version(name) for name in packages},
    }
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
