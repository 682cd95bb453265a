"""The rows of a benchmark: from a file, from a folder with its file in it, or from the hub."""

import logging
from pathlib import Path

from rac.errors import UserError, first_line
from rac.evaluation.tasks.benchmark import Benchmark
from rac.rows import Row, has_format, read_file

HUB_SECONDS = 5.0

logger = logging.getLogger(__name__)


def benchmark_rows(name: str, benchmark: Benchmark, path: Path | None) -> list[Row]:
    """Read the rows of the benchmark called `name` from `path`, or from the hub when it is None.

    Raises:
        UserError: they cannot be had; says which file with which columns to give.
    """
    if path is None:
        return _hub_rows(name, benchmark)
    files = _find(name, benchmark, path) if path.is_dir() else [path]
    return [row for file in files for row in read_file(file)]


def _find(name: str, benchmark: Benchmark, folder: Path) -> list[Path]:
    """The benchmark's files in `folder` by their published names, else the only file of rows."""
    for pattern in (*benchmark.files, "*"):
        found = [file for file in sorted(folder.rglob(pattern)) if file.is_file()]
        found = [file for file in found if has_format(file)]
        if len(found) == 1 or (found and benchmark.parts and pattern != "*"):
            return found
        if found:
            names = ", ".join(str(file.relative_to(folder)) for file in found[:4])
            raise UserError(f"{folder} has several files for {name} ({names}); name one of them")
    raise UserError(f"{folder} has no file for {name}: it needs {_wanted(benchmark)}")


def _wanted(benchmark: Benchmark) -> str:
    return (
        f"{benchmark.files[0]} of {benchmark.hub}, or its rows as JSONL, JSON, Parquet or CSV "
        f"(also .gz), with the columns {benchmark.columns}"
    )


def _hub_rows(name: str, benchmark: Benchmark) -> list[Row]:
    import datasets

    try:
        _require_reachable(benchmark.hub)
        data = datasets.load_dataset(benchmark.hub, benchmark.config, split=benchmark.split)
        return [Row(values, f"{benchmark.hub}, row {n}") for n, values in enumerate(data, 1)]
    except Exception as error:  # hub, network and format errors of many kinds
        logger.debug("cannot load %s", benchmark.hub, exc_info=True)
        raise UserError(
            f"{name}: cannot load {benchmark.hub} from the hub ({first_line(error)}); "
            f"give its file with --data: {_wanted(benchmark)}"
        ) from error


def _require_reachable(hub: str) -> None:
    """Ask the hub once: `load_dataset` would retry for half a minute where there is none.

    In offline mode (HF_HUB_OFFLINE) nothing is asked and what the cache holds is loaded.
    """
    import huggingface_hub

    if not huggingface_hub.constants.HF_HUB_OFFLINE:
        huggingface_hub.HfApi().dataset_info(hub, timeout=HUB_SECONDS)
