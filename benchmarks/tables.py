"""Tables made from results/*.jsonl: printed, or put between the markers of the READMEs.

    python -m benchmarks.tables            print every table
    python -m benchmarks.tables --write    replace what stands between the markers
    python -m benchmarks.tables --check    exit 1 if a README does not show the results

A marker pair is `<!-- table: NAME -->` ... `<!-- end -->`, each on a line of its own; the names are
the keys of TABLES. A table whose results are not there is left as it is.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.code_tables import CODE_TABLES
from benchmarks.goals import GOAL_TABLES
from benchmarks.kernel_tables import KERNEL_TABLES
from benchmarks.rows import latest_of_newest, markdown, read_results
from benchmarks.sparse_tables import SPARSE_TABLES

ROOT = Path(__file__).parent.parent
READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
MARKED = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
CALIBRATIONS = {"dense": "", "text": "text", "prompt": "prompt", "rac": "**rac**"}


def megabytes(count: float) -> str:
    """Bytes as "1,234 MB"."""
    return f"{count / 1e6:,.0f} MB"


def prune_table(folder: Path) -> str:
    """Calibrations beside each other, on SmolLM2's own traces for held-out problems."""
    rows = latest_of_newest(
        read_results(folder, "prune_smollm2"), "prompts", "pattern", "calibration"
    )
    order = list(CALIBRATIONS)
    rows.sort(
        key=lambda r: (
            r["prompts"],
            r["pattern"] != "dense",
            r["pattern"],
            order.index(r["calibration"]),
        )
    )
    header = (
        "problems|pattern|calibration|KL decode>|ppl decode>|KL prompt>|ppl prompt>|layer error>"
        "|seconds>|peak memory>"
    )
    return markdown(header, (_prune_row(row) for row in rows))


def _prune_row(row: dict) -> list[str]:
    seconds = row.get("seconds")
    return [
        row["prompts"].removesuffix(".jsonl"),
        row["pattern"],
        CALIBRATIONS[row["calibration"]],
        f"{row['kl_decode']:.3f}",
        f"{row['ppl_decode']:.2f}",
        f"{row['kl_prompt']:.3f}",
        f"{row['ppl_prompt']:.2f}",
        f"{row['mean_layer_error']:.3f}" if seconds else "",
        f"{sum(seconds.values()):.0f}" if seconds else "",
        megabytes(row["peak_memory_bytes"]) if seconds else "",
    ]


def peers_table(folder: Path) -> str:
    """Ours beside other SparseGPTs; `against rac` is the time over that of rac's fastest way."""
    rows = latest_of_newest(read_results(folder, "peers"), "pattern", "propagate", "contender")
    rows.sort(key=lambda r: (r["pattern"], r["propagate"]))
    fastest: dict[tuple, float] = {}
    for row in rows:
        if row["contender"].startswith("rac"):
            key = row["pattern"], row["propagate"]
            fastest[key] = min(fastest.get(key, row["seconds"]), row["seconds"])
    header = (
        "pattern|activations|contender|seconds>|against rac>|of it solving>|layer error>"
        "|peak memory>|above the model>"
    )
    return markdown(header, (_peer_row(r, fastest[r["pattern"], r["propagate"]]) for r in rows))


def _peer_row(row: dict, fastest: float) -> list[str]:
    contender = row["contender"]
    return [
        row["pattern"],
        row["propagate"],
        f"**{contender}**" if contender.startswith("rac") else contender,
        f"{row['seconds']:.1f}",
        f"{row['seconds'] / fastest:.1f}x",
        f"{row['solver_seconds']:.1f}",
        f"{row['mean_layer_error']:.5f}",
        megabytes(row["peak_memory_bytes"]),
        megabytes(row["peak_memory_bytes"] - row["loaded_memory_bytes"]),
    ]


def demo_table(folder: Path) -> str:
    """The embedded reasoner: held-out accuracy and minutes by pattern and calibration."""
    rows = latest_of_newest(read_results(folder, "demo"), "pattern", "calibration")
    by_key = {(row["pattern"], row["calibration"]): row for row in rows}
    patterns = [p for p in dict.fromkeys(row["pattern"] for row in rows) if p != "dense"]
    header = "pattern|text>|prompt>|rac>|minutes text>|prompt>|rac>"
    lines = [
        [pattern]
        + [_accuracy(by_key[pattern, c]) for c in ("text", "prompt", "rac")]
        + [f"{by_key[pattern, c]['minutes']:.2f}" for c in ("text", "prompt", "rac")]
        for pattern in patterns
    ]
    dense = by_key.get(("dense", "dense"))
    note = f"\nDense: {_accuracy(dense)}, {dense['minutes']:.2f} minutes.\n" if dense else ""
    return markdown(header, lines) + note


def _accuracy(row: dict) -> str:
    return f"{row['accuracy']:.3f} ± {row['stderr']:.3f}"


def sweep_table(folder: Path) -> str:
    """Accuracy of the embedded reasoner at every sparsity, and the collapse points below."""
    rows = latest_of_newest(read_results(folder, "sweep"), "pattern", "calibration")
    found = {(r["pattern"], r["calibration"]): r for r in rows if "pattern" in r}
    patterns = [p for p in dict.fromkeys(p for p, _ in found) if p != "dense"]
    lines = [
        [f"{100 * float(p):g}%", *(_accuracy(found[p, c]) for c in ("text", "prompt", "rac"))]
        for p in patterns
    ]
    points = {r["calibration"]: r["collapse"] for r in rows if "collapse" in r}
    lines.append(["**collapse**", *(f"**{points[c]}**" for c in points)])
    return markdown("sparsity|text>|prompt>|rac>", lines) if points else ""


def sweep_lengths_table(folder: Path) -> str:
    """Shortest and longest outputs, and how outputs end, where not all answers are right."""
    rows = latest_of_newest(read_results(folder, "sweep"), "pattern", "calibration")
    header = (
        "sparsity|calibration|short 30%>|long 30%>|ratio words>|tokens>|short 20%>|long 20%>"
        "|ratio words>|tokens>|at the limit>|no `</think>`>|repeating>"
    )
    telling = [r for r in rows if r.get("pattern") == "dense" or r.get("accuracy", 1) < 1]
    return markdown(header, map(_sweep_lengths_row, telling))


def _sweep_lengths_row(row: dict) -> list[str]:
    pattern = row["pattern"]
    cells = ["dense" if pattern == "dense" else f"{100 * float(pattern):g}%"]
    cells.append(CALIBRATIONS[row["calibration"]])
    for percent in (30, 20):
        cells += [f"{100 * row[f'{group}_{percent}']:.1f}" for group in ("short", "long")]
        cells += [f"{row[f'{unit}_ratio_{percent}']:.2f}" for unit in ("word", "token")]
    shares = ("limit_share", "unfinished_share", "repetition_share")
    return [*cells, *(f"{100 * row[share]:.1f}%" for share in shares)]


def end_to_end_table(folder: Path) -> str:
    """The whole of `rac prune` beside an earlier commit."""
    rows = latest_of_newest(read_results(folder, "end_to_end"), "model", "version", "threads")
    header = "model|tokens>|version|seconds>|speed-up>|decoding s>|peak memory>|layer error>"
    return markdown(header, (_end_to_end_row(row) for row in rows))


def _end_to_end_row(row: dict) -> list[str]:
    return [
        row["model"],
        f"{row['tokens']:,}",
        f"{row['version']} ({row['version_commit']})",
        f"{row['seconds']:.1f}",
        f"{row['speedup']:.2f}x",
        f"{row['stages']['decode traces']:.1f}",
        megabytes(row["peak_memory_bytes"]),
        f"{row['error']:.5f}",
    ]


TABLES: dict[str, Callable[[Path], str]] = {
    "demo": demo_table,
    "sweep": sweep_table,
    "sweep_lengths": sweep_lengths_table,
    "smollm2": prune_table,
    "peers": peers_table,
    "end_to_end": end_to_end_table,
    **KERNEL_TABLES,
    **SPARSE_TABLES,
    **CODE_TABLES,
    **GOAL_TABLES,
}


def fill(text: str, folder: Path) -> str:
    """`text` with every marked table made anew from the results in `folder`.

    Raises:
        KeyError: a marker names a table that does not exist.
    """
    return MARKED.sub(lambda m: m[1] + (TABLES[m[2]](folder) or m[3]) + m[4], text)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="update the READMEs")
    parser.add_argument("--check", action="store_true", help="exit 1 where they are out of date")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if not options.write and not options.check:
        print("\n".join(f"{name}\n\n{table(options.results)}" for name, table in TABLES.items()))
    for path in READMES if options.write or options.check else ():
        text = path.read_text() if path.is_file() else ""
        filled = fill(text, options.results)
        if options.check and filled != text:
            sys.exit(f"{path} is out of date: run python -m benchmarks.tables --write")
        if filled != text:
            path.write_text(filled)


if __name__ == "__main__":
    main()
