"""Sparsity sweep of the embedded reasoner: accuracy at 10 to 80%, and where it collapses.

Rows of results/sweep.jsonl: dense, and every sparsity of every calibration, with the scores and
length ratio of the shortest and longest outputs and the share that ends in a loop; then a row a
calibration with its collapse point. The figure is results/sweep.png. `--runs` names a folder that
keeps the runs, so that an interrupted sweep continues. Minutes are not recorded: accuracies do not
depend on what else the machine does, and minutes do.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.common import append_row
from rac.demo import CALIBRATIONS, demo
from rac.evaluation.collapse import collapse_point
from rac.evaluation.compare import compare
from rac.evaluation.verbosity import PERCENTS, short_and_long
from rac.report.entries import Entry
from rac.report.figures import figure1
from rac.report.runs import make_sections, read_entries

SPARSITIES = tuple(f"{s / 10:g}" for s in range(1, 9))


def sweep_row(entry: Entry, entries: list[Entry]) -> dict:
    """What is recorded of one evaluation."""
    result, responses = entry.result, entry.evaluation.responses
    row = {
        "pattern": result.pattern,
        "calibration": result.calibration,
        "n": result.n,
        "max_new_tokens": result.settings["max_new_tokens"],
        "accuracy": result.accuracy,
        "stderr": result.stderr,
        "output_tokens": result.output_tokens,
        "limit_share": result.limit_share,
        "unfinished_share": result.unfinished_share,
        "repetition_share": entry.repetition_share,
    }
    for percent in PERCENTS:
        found = short_and_long(responses, percent)
        row |= {
            f"short_{percent}": found.short["accuracy"],
            f"long_{percent}": found.long["accuracy"],
            f"word_ratio_{percent}": found.word_ratio,
            f"token_ratio_{percent}": found.token_ratio,
        }
    for other in entries:
        same = other.result.pattern == result.pattern and result.calibration == "rac"
        if same and other.result.calibration in ("text", "prompt"):
            paired = compare(other.evaluation, entry.evaluation)
            row[f"p_against_{other.result.calibration}"] = paired.p_value
            row[f"interval_against_{other.result.calibration}"] = [paired.low, paired.high]
    return row


def collapse_row(entries: list[Entry], calibration: str) -> dict:
    """The collapse point of one calibration."""
    chosen = [e for e in entries if e.dense or e.result.calibration == calibration]
    point = collapse_point({e.pattern.sparsity: e.result.accuracy for e in chosen})
    row = {"calibration": calibration, "collapse": str(point)}
    return row | {"above": point.above, "below": point.below}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of sweep.jsonl and the figure")
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.runs or Path(folder) / "sweep"
        demo(root, patterns=SPARSITIES, quiet=True)
        entries = read_entries([p.parent for p in sorted(root.glob("*/eval"))])
        (section,) = make_sections(entries)
        rows = [sweep_row(e, entries) for e in entries]
        rows += [collapse_row(entries, calibration) for calibration in CALIBRATIONS]
        for row in rows:
            print(row)
            if options.out:
                append_row(options.out / "sweep.jsonl", row)
        if options.out:
            (options.out / "sweep.png").write_bytes(figure1(section)[0].png)


if __name__ == "__main__":
    main()
