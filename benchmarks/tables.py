"""Tables made from results/*.jsonl: printed, or put between the markers of the READMEs.

    python benchmarks/tables.py            print every table
    python benchmarks/tables.py --write    replace what stands between the markers
    python benchmarks/tables.py --check    exit 1 if a README does not show the results

A marker pair is `<!-- table:NAME -->` ... `<!-- /table -->`, each on a line of its own; the names
are the keys of TABLES.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
MARKED = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)
CALIBRATIONS = {"dense": "(dense)", "text": "text", "prompt": "prompt", "rac": "**rac**"}


def read_results(folder: Path, name: str) -> list[dict]:
    """The rows of one results file, oldest first; none where it is missing."""
    path = folder / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.strip()]


def latest(rows: Iterable[dict], *keys: str) -> list[dict]:
    """Of rows that agree in `keys`, the last one; in order of first appearance."""
    kept: dict[tuple, dict] = {}
    for row in rows:
        kept[tuple(row.get(key) for key in keys)] = row
    return list(kept.values())


def markdown(header: str, rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; `header` is "name|name>|...", > aligns a column to the right."""
    names = header.split("|")
    lines = ["| " + " | ".join(name.rstrip(">") for name in names) + " |"]
    lines.append("|" + "|".join("---:" if name.endswith(">") else "---" for name in names) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def megabytes(count: float) -> str:
    """Bytes as "1,234 MB"."""
    return f"{count / 1e6:,.0f} MB"


def prune_table(folder: Path) -> str:
    """Calibrations against each other on SmolLM2's own held-out traces."""
    rows = latest(read_results(folder, "prune_smollm2"), "prompts", "pattern", "calibration")
    order = list(CALIBRATIONS)
    rows.sort(key=lambda r: (r["pattern"] != "dense", r["pattern"], order.index(r["calibration"])))
    header = (
        "pattern|calibration|KL decode>|ppl decode>|KL prompt>|ppl prompt>|layer error>"
        "|seconds>|peak memory>"
    )
    return markdown(header, (_prune_row(row) for row in rows))


def _prune_row(row: dict) -> list[str]:
    seconds = row.get("seconds")
    return [
        row["pattern"] if row["pattern"] != "dense" else "",
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
    """Ours beside other SparseGPTs; faster than the slowest peer of the same kind by `speed-up`."""
    rows = latest(read_results(folder, "peers"), "pattern", "propagate", "contender")
    rows.sort(key=lambda r: (r["pattern"], r["propagate"]))
    slowest = {}
    for row in rows:
        key = row["pattern"], row["propagate"]
        slowest[key] = max(slowest.get(key, 0.0), row["seconds"])
    header = (
        "pattern|activations|contender|seconds>|speed-up>|solver seconds>|layer error>"
        "|peak memory>|above the model>"
    )
    return markdown(header, (_peer_row(r, slowest[r["pattern"], r["propagate"]]) for r in rows))


def _peer_row(row: dict, slowest: float) -> list[str]:
    above = row["peak_memory_bytes"] - row["loaded_memory_bytes"]
    contender = row["contender"]
    return [
        row["pattern"],
        row["propagate"],
        f"**{contender}**" if contender.startswith("rac") else contender,
        f"{row['seconds']:.1f}",
        f"{slowest / row['seconds']:.1f}x",
        f"{row['solver_seconds']:.1f}",
        f"{row['mean_layer_error']:.5f}",
        megabytes(row["peak_memory_bytes"]),
        megabytes(above),
    ]


TABLES: dict[str, Callable[[Path], str]] = {
    "prune_smollm2": prune_table,
    "peers": peers_table,
}


def fill(text: str, folder: Path) -> str:
    """`text` with every marked table made anew from the results in `folder`.

    Raises:
        KeyError: a marker names a table that does not exist.
    """
    return MARKED.sub(lambda match: match[1] + TABLES[match[2]](folder) + match[3], text)


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
            sys.exit(f"{path} is out of date: run python benchmarks/tables.py --write")
        if filled != text:
            path.write_text(filled)


if __name__ == "__main__":
    main()
