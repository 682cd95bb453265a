"""Run `rac demo` from nothing, check what it must show, and record its table.

Rows of results/demo.jsonl: a pattern and a calibration each, with the demo's total seconds; the
report's figures 1 and 2 go beside them.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import append_row
from rac.demo import demo

MARGIN = 0.15  # by which rac has to beat both other calibrations at 60% and at 2:4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of demo.jsonl and the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        rows = demo(Path(folder) / "demo")
        seconds = round(time.perf_counter() - start, 1)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            for figure in (Path(folder) / "demo" / "report").glob("figure*.png"):
                shutil.copy(figure, options.out / figure.name)
    accuracy = {(row["pattern"], row["calibration"]): row["accuracy"] for row in rows}
    for row in rows:
        names = ("pattern", "calibration", "accuracy", "stderr", "minutes", "output_tokens")
        kept = {name: row[name] for name in names} | {"demo_seconds": seconds}
        print(kept)
        if options.out:
            append_row(options.out / "demo.jsonl", kept)
    print(f"{seconds} s")
    for pattern in ("0.6", "2:4"):
        others = max(accuracy[pattern, "text"], accuracy[pattern, "prompt"])
        if accuracy[pattern, "rac"] < others + MARGIN:
            sys.exit(f"{pattern}: rac {accuracy[pattern, 'rac']} is not {MARGIN} above {others}")


if __name__ == "__main__":
    main()
