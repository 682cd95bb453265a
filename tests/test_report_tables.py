"""The papers' tables: their numbers by hand, ours beside them, what is left out, the files."""

import csv
import json
from types import SimpleNamespace

import yaml
from report_runs import write_paired, write_responses, write_run

from rac.report import write_report
from rac.report.ablations import table3, table4, table5
from rac.report.compression import collapse_points, compression_tables, overall, sparsity_levels
from rac.report.grid import Cell
from rac.report.lengths import length_tables
from rac.report.runs import make_sections, read_entries
from rac.report.tables import table1

QWEN = "deepseek-ai/DeepSeek-R1-Distill-Qwen-"
LLAMA = "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"


def section_of(*runs):
    (section,) = make_sections(read_entries(runs))
    return section


def cell(grid, labels, column):
    """The cell in the row `labels` under the column with the full name `column`."""
    (row,) = (row for row in grid.rows if row.labels == labels)
    place = grid.columns.index(column)
    return next(c for start, c in grid.placed(row) if start <= place < start + c.span)


def test_table1_beside_the_paper(tmp_path):
    runs = [
        write_run(tmp_path / "rac", "0.5", "rac", 0.895, 33.2, QWEN + "7B", "math500"),
        write_run(tmp_path / "alps", "0.6", "rac", 0.8, 40.0, QWEN + "7B", "math500"),
    ]
    table = table1(section_of(*runs))
    assert [row.labels[0] for row in table.rows] == ["dense", "20%", "30%", "40%", "50%", "60%"]
    ours = cell(table, ("50%",), "Accuracy ± standard error rac")
    assert ours == Cell("0.895", "0.022", "0.900 (0.013)")
    assert cell(table, ("50%",), "Time (minutes) prompt") == Cell(paper="115.6")
    assert cell(table, ("60%",), "Accuracy ± standard error rac").paper == ""
    assert cell(table, ("dense",), "Time (minutes) text") == Cell(paper="23.3", span=3)
    assert table.title.startswith("Table 1.")


def test_another_solver_or_task_has_no_paper_beside_it(tmp_path):
    run = write_run(tmp_path / "a", "0.5", "rac", 0.9, 1.0, QWEN + "7B", "math500", solver="wanda")
    record = json.loads((run / "model" / "rac.json").read_text()) | {"solver": "wanda"}
    (run / "model" / "rac.json").write_text(json.dumps(record))
    table = table1(section_of(run))
    column = "Accuracy ± standard error rac"
    assert cell(table, ("50%, wanda",), column).paper == ""
    assert cell(table, ("50%, sparsegpt",), column) == Cell(paper="0.900 (0.013)")
    other = write_run(tmp_path / "b", "0.5", "rac", 0.9, 1.0, QWEN + "7B", "gsm8k")
    assert not table1(section_of(other)).has_paper


def test_table3(tmp_path):
    own = write_run(tmp_path / "rac", "0.5", "rac", 0.9, 1.0)
    off = write_run(tmp_path / "off", "0.5", "off-policy", 0.8, 1.0)
    assert table3(section_of(own)) is None
    table = table3(section_of(own, off))
    assert [row.labels for row in table.rows] == [("50%",)] and not table.has_paper
    assert [c.text for c in table.rows[0].cells] == ["0.900", "0.800"]
    theirs = table3(
        section_of(write_run(tmp_path / "p", "0.3", "rac", 0.9, 1.0, QWEN + "7B", "math500"))
    )
    assert [row.labels[0] for row in theirs.rows] == ["20%", "30%", "40%", "50%"]
    assert cell(theirs, ("30%",), "Accuracy ± standard error off-policy").paper == "0.930 (0.0114)"


def test_table4(tmp_path):
    run = write_run(tmp_path / "a", "2:4", "rac", 0.9, 1.0, tokens_per_second=1234.4)
    assert table4(section_of(run)) is None  # the whole model, attention too
    (run / "model" / "recipe.yaml").write_text(yaml.safe_dump({"scope": "mlp,first-last"}))
    table = table4(section_of(run))
    assert cell(table, ("RAC",), "First & last third Thr").text == "1,234"
    assert cell(table, ("RAC",), "First third Acc") == Cell()
    (run / "model" / "config.json").write_text('{"quantization_config": {"format": "2:4-fp8"}}')
    assert [row.labels[0] for row in table4(section_of(run)).rows] == ["dense", "RAC+FP8"]
    theirs = table4(
        section_of(write_run(tmp_path / "b", "0.5", "rac", 0.9, 1.0, QWEN + "14B", "math500"))
    )
    assert cell(theirs, ("RAC+FP8",), "Entire model Acc").paper == "0.8920 (0.014)"
    assert cell(theirs, ("dense",), "Entire model Thr").paper == "1426"


def test_table5(tmp_path):
    section = section_of(write_run(tmp_path / "a", "0.4", "rac", 0.9, 30.0, QWEN + "7B", "math500"))
    (entry,) = section.entries
    cut = SimpleNamespace(accuracy=0.8, stderr=0.028)
    result = SimpleNamespace(**vars(entry.result) | {"budgets": {4096: cut}})
    result.settings = result.settings | {"max_new_tokens": 32768}
    object.__setattr__(entry, "result", result)
    table = table5(section)
    assert cell(table, ("40% rac",), "Max tokens = 4096 Acc.") == Cell("0.800", "0.028", "0.836")
    assert cell(table, ("40% rac",), "Max tokens = 4096 Time") == Cell(paper="8.6")
    assert cell(table, ("40% rac",), "Max tokens = 32768 Time") == Cell("30.0", paper="29.1")
    assert cell(table, ("dense",), "Max tokens = 8192 Acc.") == Cell(paper="0.904")
    assert table5(section_of(write_run(tmp_path / "b", "0.4", "rac", 0.9, 1.0))) is None


def llama_runs(root):
    """Dense and 50% text and rac of the paper's Llama on two of its tasks."""
    for task, accuracies in (("aime24", (0.6, 0.2, 0.4)), ("folio", (0.8, 0.7, 0.75))):
        for (pattern, calibration), accuracy in zip(
            (("dense", "dense"), ("0.5", "text"), ("0.5", "rac")), accuracies, strict=True
        ):
            write_run(root / calibration, pattern, calibration, accuracy, 1.0, LLAMA, task)
    return [root / name for name in ("dense", "text", "rac")]


def test_overall_and_sparsity_levels(tmp_path):
    entries = read_entries(llama_runs(tmp_path))
    table = overall(entries)
    row = ("R1-Distill-Llama", "70B", "Distillation & 50% sparse")
    assert cell(table, row, "Accuracy (%) AIME 2024") == Cell("20.0", paper="26.7")
    assert cell(table, row, "Accuracy (%) Avg") == Cell(paper="64.9")  # Temporal was not run
    own = (*row[:2], "Distillation & 50% sparse (rac)")
    assert cell(table, own, "Accuracy (%) FOLIO") == Cell("75.0")
    levels = sparsity_levels(entries)
    row = ("R1-Distill-Llama", "70B", "70%", "text")
    assert cell(levels, row, "Accuracy (%) MuSiQue (EM, F1)") == Cell(paper="(0.0, 2.23)")
    assert cell(levels, (*row[:2], "50%", "text"), "Accuracy (%) FOLIO") == Cell(
        "70.0", paper="70.9"
    )
    assert [r.labels[2] for r in levels.rows][:3] == ["dense", "10%", "30%"]
    assert {r.labels[0] for r in levels.rows} == {"R1-Distill-Llama"}


def test_the_average_is_of_the_three_tasks(tmp_path):
    run = tmp_path / "dense"
    for task, accuracy in (("aime24", 0.6), ("folio", 0.8), ("bbh-temporal", 1.0)):
        write_run(run, "dense", "dense", accuracy, 1.0, LLAMA, task)
    row = ("R1-Distill-Llama", "70B", "Distillation")
    assert cell(overall(read_entries([run])), row, "Accuracy (%) Avg") == Cell("80.0", paper="80.7")


def test_collapse_points(tmp_path):
    runs = [write_run(tmp_path / "dense", "dense", "dense", 0.9, 1.0)]
    for name, accuracies in (("text", (0.8, 0.4)), ("rac", (0.8, 0.46))):
        for pattern, accuracy in zip(("0.5", "0.6"), accuracies, strict=True):
            runs.append(write_run(tmp_path / f"{name}{pattern}", pattern, name, accuracy, 1.0))
    table = collapse_points(read_entries(runs))
    assert cell(table, ("tiny", "text"), "Sparsity embedded").text == "50–60%"
    assert cell(table, ("tiny", "rac"), "Sparsity embedded").text == "not up to 60%"
    assert collapse_points(read_entries(runs[:2])) is None


def test_lengths(tmp_path):
    run = write_run(tmp_path / "a", "0.5", "rac", 0.5, 1.0)
    assert length_tables(read_entries([run])) == []
    write_responses(run, [True] * 5 + [False] * 5)
    thirty, twenty = length_tables(read_entries([run]))
    # question i has 7 + i % 7 + 2 words: the shortest are 0, 7, 1, the longest 6, 5, 4
    row = ("tiny", "50% sparse (rac)")
    assert cell(thirty, row, "embedded Short") == Cell("66.7", best=True)
    assert cell(thirty, row, "embedded Long") == Cell("33.3")
    assert (thirty.name, twenty.name) == ("compression_table4", "compression_table5")


def test_lengths_beside_the_paper(tmp_path):
    runs = llama_runs(tmp_path)
    write_responses(runs[0], [True] * 10, task="aime24")
    thirty, _ = length_tables(read_entries(runs))
    found = cell(thirty, ("R1-Distill-Llama", "Distillation"), "AIME 2024 Short")
    assert (found.text, found.paper) == ("100.0", "88.9")
    row = ("R1-Distill-Llama", "Distillation & 30% sparse")
    assert cell(thirty, row, "MuSiQue Ratio") == Cell(paper="8.8")


def test_the_page_and_the_files(tmp_path):
    runs = [*llama_runs(tmp_path / "llama"), *write_paired(tmp_path / "tiny")]
    write_report(runs, tmp_path / "report", reconstruction=False)
    html = (tmp_path / "report" / "report.html").read_text()
    assert '<span class="paper">26.7</span>' in html and "156.5" not in html
    names = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    assert {"compression_table2.md", "compression_table3_others.csv", "paired_3.csv"} <= names
    with (tmp_path / "report" / "tables" / "compression_table3.csv").open() as file:
        rows = list(csv.DictReader(file))
    (row,) = (r for r in rows if (r["Sparsity"], r["Calibration"]) == ("50%", "text"))
    assert row["Accuracy (%) AIME 2024"] == "20.0"
    assert row["Accuracy (%) AIME 2024 (paper)"] == "26.7"


def test_without_their_models_no_number_of_theirs_is_shown(tmp_path):
    runs = write_paired(tmp_path)
    write_report(runs, tmp_path / "report", reconstruction=False)
    assert 'class="paper"' not in (tmp_path / "report" / "report.html").read_text()
    grids = compression_tables(read_entries(runs))
    assert [grid.name for grid in grids] == ["compression_table3"]
