"""Pairs of runs, outputs that repeat themselves, and a table's forms as CSV and Markdown."""

import json

from report_runs import write_paired, write_responses, write_run

from rac.report import write_report
from rac.report.analyses import format_p, paired_table, repetition_examples
from rac.report.grid import Cell, Grid, Row, to_csv, to_markdown
from rac.report.runs import make_sections, read_entries


def test_paired_table(tmp_path):
    table = paired_table(make_sections(read_entries(write_paired(tmp_path)))[0])
    assert [row.labels for row in table.rows] == [
        ("50%", "text", "rac"), ("50%", "dense", "text"), ("50%", "dense", "rac"),
    ]  # fmt: skip
    texts = [c.text for c in table.rows[0].cells]
    assert texts[:3] == ["0.200", "0.900", "+0.700"] and texts[4:7] == ["1", "8", "0.04"]
    assert (
        paired_table(
            make_sections(read_entries([write_run(tmp_path / "alone", "0.5", "rac", 0.5, 1.0)]))[0]
        )
        is None
    )
    assert [format_p(p) for p in (1e-9, 0.0039, 0.0391, 1)] == [
        "< 0.0001",
        "0.0039",
        "0.04",
        "1.00",
    ]


def test_repetition_examples_and_shares(tmp_path):
    run = write_run(tmp_path / "rac", "0.5", "rac", 0.5, 1.0)
    looping = "Let us see. " + "So it must be the other box. " * 30 + "So it m"
    path = write_responses(run, [False] * 4)
    lines = path.read_text().splitlines()
    changed = json.loads(lines[3]) | {"text": looping}
    path.write_text("\n".join([*lines[:3], json.dumps(changed), lines[4]]) + "\n")
    entries = read_entries([run])
    assert entries[0].repetition_share == 0.25
    (example,) = repetition_examples(entries)
    assert example.where == "50% rac, question 3 of embedded"
    assert len(example.period) == len("So it must be the other box. ")
    assert "Let us see" in example.before and example.repeats.startswith("30 times")
    rows = write_report([run], tmp_path / "report", reconstruction=False)
    assert rows[0]["repetition_share"] == 0.25
    html = (tmp_path / "report" / "report.html").read_text()
    assert "Outputs that repeat themselves" in html and "question 3 of embedded" in html


def test_csv_and_markdown_by_hand():
    rows = (
        Row(("dense",), (Cell("1.0", "0.1", span=2), Cell(paper="3")), dense=True),
        Row(("a|b",), (Cell("2.0", best=True), Cell(), Cell("4", paper="5"))),
    )
    grid = Grid("t", "T", ("Name",), (("Acc", ("x", "y")), ("", ("z",))), rows, "A note.")
    assert to_csv(grid).splitlines() == [
        "Name,Acc x,Acc x stderr,Acc y,Acc y stderr,z,z (paper)",
        "dense,1.0,0.1,1.0,0.1,,3",
        "a|b,2.0,,,,4,5",
    ]
    assert to_markdown(grid).splitlines() == [
        "**T**",
        "",
        "| Name | Acc x | Acc y | z |",
        "|---|---:|---:|---:|",
        "| dense | 1.0 ± 0.1 | 1.0 ± 0.1 | *3* |",
        "| a\\|b | **2.0** |  | 4 *5* |",
        "",
        "A note. In italics: the paper's.",
    ]
