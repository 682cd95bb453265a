"""The papers' tables: their numbers by hand, ours beside them, what is left out, the files."""

import csv
import json
from types import SimpleNamespace

import pytest
import yaml
from report_runs import write_responses, write_run

from rac.report import write_report
from rac.report.ablations import table3, table4, table5
from rac.report.analyses import format_p, paired_table, repetition_examples
from rac.report.compression import collapse_points, compression_tables, overall, sparsity_levels
from rac.report.grid import Cell, Grid, Row, to_csv, to_markdown
from rac.report.lengths import length_tables
from rac.report.paper import compression, pruning
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


def test_numbers_of_the_pruning_paper_by_hand():
    cells = pruning.ACCURACY_AND_MINUTES
    assert cells["math500", "1.5B", "50%", "rac"] == (("0.664", "0.021"), ("56.7", ""))
    assert cells["math500", "7B", "50%", "text"] == (("0.744", "0.020"), ("135.0", ""))
    assert cells["math500", "14B", "20%", "rac"] == (("0.962", "0.009"), ("54.7", ""))
    assert cells["math500", "14B", "dense", "dense"] == (("0.941", ""), ("50.3", ""))
    assert cells["math500", "32B", "50%", "text"] == (None, None)
    assert cells["math500", "32B", "40%", "prompt"] == (("0.934", "0.011"), ("89.7", ""))
    assert cells["livecodebench", "7B", "50%", "rac"] == (("0.283", "0.023"), ("381.2", ""))
    assert cells["livecodebench", "14B", "30%", "rac"] == (("0.496", "0.027"), ("759.0", ""))
    assert cells["livecodebench", "1.5B", "50%", "text"] == (("0.004", "0.002"), ("464.2", ""))
    assert len(cells) == 13 * 4 + 13 * 3
    assert pruning.ON_AND_OFF_POLICY["50%", "off-policy"] == ("0.876", "0.0148")
    assert pruning.STRUCTURED["RAC+FP8", "mlp"] == (("0.8920", "0.014"), "1823")
    assert pruning.BUDGETS["40%", "rac", 4096] == ("0.836", "8.6")


def test_numbers_of_the_compression_paper_by_hand():
    llama = next(r for r in compression.OVERALL if r.compression == "Distillation & 50% sparse")
    assert llama.model == "R1-Distill-Llama" and llama.texts["musique"] == "(6.0, 12.75)"
    assert llama.texts["average"] == "64.9" and llama.scores["musique"] == (6.0, 12.75)
    assert [len(compression.OVERALL), len(compression.SPARSITY_LEVELS)] == [8, 16]
    last = compression.SPARSITY_LEVELS[-1]
    assert (last.model, last.sparsity, last.texts["folio"]) == ("R1-Distill-Qwen", 0.8, "8.7")
    for row in (*compression.OVERALL, *compression.SPARSITY_LEVELS):
        mean = sum(row.scores[task][0] for task in compression.AVERAGED) / 3
        if (row.model, row.compression) == ("R1-Distill-Llama", "40%"):
            assert row.texts["average"] == "76.8" and f"{mean:.1f}" == "76.5"  # printed so
        else:
            assert abs(mean - row.scores["average"][0]) < 0.06, row
    thirty, twenty = compression.SHORT_AND_LONG[30], compression.SHORT_AND_LONG[20]
    assert len(thirty) == len(twenty) == 10
    assert thirty[0].texts["aime24"] == ("88.9", "33.3", "5.3")
    assert thirty[-1].compression == "Distillation & 30% sparse"
    assert thirty[-1].texts["musique"] == ("(26.7, 40.7)", "(3.3, 9.1)", "8.8")
    assert twenty[1].texts["folio"] == ("87.5", "62.5", "8.6")


@pytest.mark.parametrize(
    ("source", "size", "family"),
    [
        (QWEN + "7B", "7B", None),
        ("/models/DeepSeek-R1-Distill-Qwen-1.5B/", "1.5B", None),
        (QWEN + "32B", "32B", ("R1-Distill-Qwen", "32B", "Distillation")),
        (LLAMA, None, ("R1-Distill-Llama", "70B", "Distillation")),
        ("deepseek-ai/DeepSeek-R1", None, ("DeepSeek-R1", "671B", "-")),
        ("gguf/DeepSeek-R1-UD-IQ1_S.gguf", None, ("DeepSeek-R1", "671B", "1.58-bit")),
        ("gguf/DeepSeek-R1-UD-Q2_K_XL", None, ("DeepSeek-R1", "671B", "2.51-bit")),
        ("Qwen/Qwen3-32B", None, None),
    ],
)
def test_models_are_recognised(source, size, family):
    assert (pruning.size_of(source), compression.family_of(source)) == (size, family)


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


def paired_runs(root):
    answers = {"dense": [True] * 10, "text": [False] * 8 + [True] * 2, "rac": [True] * 9 + [False]}
    runs = []
    for name, correct in answers.items():
        pattern = "dense" if name == "dense" else "0.5"
        runs.append(write_run(root / name, pattern, name, sum(correct) / 10, 1.0))
        write_responses(runs[-1], correct)
    return runs


def test_paired_table(tmp_path):
    table = paired_table(section_of(*paired_runs(tmp_path)))
    assert [row.labels for row in table.rows] == [
        ("50%", "text", "rac"), ("50%", "dense", "text"), ("50%", "dense", "rac"),
    ]  # fmt: skip
    texts = [c.text for c in table.rows[0].cells]
    assert texts[:3] == ["0.200", "0.900", "+0.700"] and texts[4:7] == ["1", "8", "0.04"]
    assert paired_table(section_of(write_run(tmp_path / "alone", "0.5", "rac", 0.5, 1.0))) is None
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


def test_the_page_and_the_files(tmp_path):
    runs = [*llama_runs(tmp_path / "llama"), *paired_runs(tmp_path / "tiny")]
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
    runs = paired_runs(tmp_path)
    write_report(runs, tmp_path / "report", reconstruction=False)
    assert 'class="paper"' not in (tmp_path / "report" / "report.html").read_text()
    grids = compression_tables(read_entries(runs))
    assert [grid.name for grid in grids] == ["compression_table3"]


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
