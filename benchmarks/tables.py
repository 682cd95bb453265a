"""Tables made from results/*.jsonl: printed, or put between the markers of the READMEs.

    python benchmarks/tables.py            print every table
    python benchmarks/tables.py --write    replace what stands between the markers
    python benchmarks/tables.py --check    exit 1 if a README does not show the results

A marker pair is `<!-- table: NAME -->` ... `<!-- end -->`, each on a line of its own; the names are
the keys of TABLES. A table whose results are not there is left as it is.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
MARKED = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
CALIBRATIONS = {"dense": "", "text": "text", "prompt": "prompt", "rac": "**rac**"}


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
    """A Markdown table, "" without rows; `header` is "name|name>|...", > aligns to the right."""
    names, rows = header.split("|"), list(rows)
    if not rows:
        return ""
    lines = ["| " + " | ".join(name.rstrip(">") for name in names) + " |"]
    lines.append("|" + "|".join("---:" if name.endswith(">") else "---" for name in names) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def megabytes(count: float) -> str:
    """Bytes as "1,234 MB"."""
    return f"{count / 1e6:,.0f} MB"


def prune_table(folder: Path) -> str:
    """Calibrations beside each other, on SmolLM2's own traces for held-out problems."""
    rows = latest(read_results(folder, "prune_smollm2"), "prompts", "pattern", "calibration")
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
    rows = latest(read_results(folder, "peers"), "pattern", "propagate", "contender")
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
    rows = latest(read_results(folder, "demo"), "pattern", "calibration")
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


def hessian_table(folder: Path) -> str:
    """Rank-k updates of H."""
    rows = latest(read_results(folder, "hessian"), "device", "dtype", "D", "T", "threads")
    header = "device|x|D>|T>|ours ms>|H += XᵀX ms>|speed-up>|GFLOP/s>|matrix product GFLOP/s>"
    return markdown(header, (_hessian_row(row) for row in rows))


def _hessian_row(row: dict) -> list[str]:
    numbers = [row["time_ms"], row["baseline_ms"]]
    return [
        _device(row),
        row["dtype"],
        str(row["D"]),
        str(row["T"]),
        *(f"{number:.1f}" for number in numbers),
        f"{row['speedup']:.1f}x",
        f"{row['gflops']:.0f}",
        f"{row['matmul_gflops']:.0f}",
    ]


def sparsegpt_table(folder: Path) -> str:
    """Factor and solve of one layer."""
    rows = latest(read_results(folder, "sparsegpt"), "device", "R", "C", "pattern", "threads")
    header = (
        "device|R x C|pattern|factor ms>|solve ms>|eager ms>|speed-up>|over the floor>|error ratio>"
    )
    return markdown(header, (_sparsegpt_row(row) for row in rows))


def _sparsegpt_row(row: dict) -> list[str]:
    return [
        _device(row),
        f"{row['R']} x {row['C']}",
        row["pattern"],
        *(f"{row[name]:.0f}" for name in ("factor_ms", "solve_ms", "baseline_ms")),
        f"{row['speedup']:.1f}x",
        f"{row['over_floor']:.1f}x",
        f"{row['error_ratio']:.4f}",
    ]


def _device(row: dict) -> str:
    return row["gpu"] or f"CPU, {row['threads']} threads"


TABLES: dict[str, Callable[[Path], str]] = {
    "demo": demo_table,
    "smollm2": prune_table,
    "peers": peers_table,
    "hessian": hessian_table,
    "sparsegpt": sparsegpt_table,
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
            sys.exit(f"{path} is out of date: run python benchmarks/tables.py --write")
        if filled != text:
            path.write_text(filled)


if __name__ == "__main__":
    main()
