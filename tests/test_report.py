"""What `rac report` writes: rows, Table 1, the sentence, the page, and what it refuses."""

import json
import re
from html.parser import HTMLParser

import pytest
from report_runs import record, summary, write_prototype, write_responses, write_run

from rac.errors import UserError
from rac.report import write_report
from rac.report.grid import Cell
from rac.report.runs import make_sections, read_entries
from rac.report.stages import seconds_table, stage_order
from rac.report.tables import format_pattern, table1

ROW_TYPES = {
    "pattern": str,
    "calibration": str,
    "accuracy": float,
    "stderr": float,
    "minutes": float,
    "output_tokens": float,
    "task": str,
    "run": str,
    "n": int,
    "sparsity": float,
    "limit_share": float,
    "unfinished_share": float,
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The prototype's report: (folder, rows)."""
    root = tmp_path_factory.mktemp("prototype")
    rows = write_report(write_prototype(root / "runs"), root / "report")
    return root / "report", rows


def section_of(*runs):
    (section,) = make_sections(read_entries(runs))
    return section


def test_rows(report):
    folder, rows = report
    assert json.loads((folder / "results.json").read_text()) == rows
    assert len(rows) == 13
    for row in rows:
        for key, kind in ROW_TYPES.items():
            assert isinstance(row[key], kind), (key, row[key])
    found = [(row["pattern"], row["calibration"]) for row in rows]
    patterns = ("0.3", "0.5", "0.6", "2:4")
    expected = [(p, c) for p in patterns for c in ("text", "prompt", "rac")]
    assert found == [("dense", "dense"), *expected]
    best = rows[found.index(("0.6", "rac"))]
    assert (best["accuracy"], best["minutes"], best["run"]) == (0.96, 0.46, "0.6-rac")
    assert best["stderr"] == pytest.approx((0.96 * 0.04 / 200) ** 0.5)


class Links(HTMLParser):
    """Everything that a browser would fetch for the page."""

    def __init__(self):
        super().__init__()
        self.found, self.images = [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        assert tag not in ("script", "link", "iframe", "base", "object", "embed")
        self.found += [values[k] for k in ("src", "href", "srcset", "action") if k in values]
        if tag == "img":
            self.images.append(values)


def test_the_page_fetches_nothing(report):
    folder, _ = report
    html = (folder / "report.html").read_text()
    links = Links()
    links.feed(html)
    assert links.found and all(url.startswith("data:image/png;base64,") for url in links.found)
    assert all(image["alt"] for image in links.images)
    without_data = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", html)
    assert not re.search(r"https?:|//\w|url\(|@import", without_data)
    assert 'name="viewport"' in html


def test_pictures_lie_beside_the_page(report):
    folder, _ = report
    names = {path.name for path in folder.glob("*.png")}
    layers = {f"layers_{p}.png" for p in ("0.3", "0.5", "0.6", "2-4")}
    assert names == {
        "figure1_accuracy.png", "figure1_minutes.png", "traces.png", "seconds.png", *layers,
    }  # fmt: skip
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in folder.glob("*.png"))
    assert "no such pair" in (folder / "report.html").read_text()  # no checkpoints: no Figure 2


def test_table1_by_hand(tmp_path):
    table = table1(section_of(*write_prototype(tmp_path)))
    assert [names for _, names in table.groups] == [("text", "prompt", "rac")] * 2
    assert [row.labels for row in table.rows] == [
        ("dense",),
        ("30%",),
        ("50%",),
        ("60%",),
        ("2:4",),
    ]
    dense = table.rows[0]
    assert dense.dense and dense.cells == (Cell("0.987", "0.008", span=3), Cell("0.40", span=3))
    assert table.rows[3].cells == (
        *(Cell("0.040", "0.014"), Cell("0.000", "0.000"), Cell("0.960", "0.014", best=True)),
        *(Cell("1.21"), Cell("1.34"), Cell("0.46", best=True)),
    )


def test_table1_ties_gaps_and_repeated_runs(tmp_path):
    runs = [
        write_run(tmp_path / "a", "0.5", "text", 0.5, 12.34),
        write_run(tmp_path / "b", "0.5", "rac", 0.5, 12.339),
        write_run(tmp_path / "c", "0.5", "rac", 0.75, 2.0),
        write_run(tmp_path / "d", "2:4", "off-policy", 0.25, 1.0),
    ]
    table = table1(section_of(*runs))
    assert table.groups[0][1] == ("text", "rac", "off-policy")
    assert [row.labels[0] for row in table.rows] == ["50%", "50% (c)", "2:4"]
    tied, repeated, lone = (row.cells for row in table.rows)
    even = Cell("0.500", "0.035")
    assert tied == (even, even, Cell(), Cell("12.3"), Cell("12.3"), Cell())
    assert [cell.text for cell in repeated[:3]] == ["", "0.750", ""]
    assert [cell.text for cell in lone[:3]] == ["", "", "0.250"]


def test_stages_are_stacked_in_the_order_they_ran():
    runs = [["collect", "prune"], ["decode traces", "replay", "prune"], ["prune"]]
    assert stage_order(runs) == ["decode traces", "collect", "replay", "prune"]


def test_seconds_of_each_stage(tmp_path):
    runs = [write_run(tmp_path / name, "0.5", name, 0.5, 1.0) for name in ("text", "rac", "prompt")]
    stages = ({"collect": 12.34, "prune": 2.345}, {"decode traces": 95.96, "prune": 3.0}, {})
    for run, seconds in zip(runs, stages, strict=True):
        path = run / "model" / "rac.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": seconds}))
    write_report(runs, tmp_path / "report", reconstruction=False)
    assert (tmp_path / "report" / "tables" / "seconds.csv").read_text().splitlines() == [
        "Sparsity,Calibration,Run,"
        "Seconds collect,Seconds decode traces,Seconds prune,Seconds total",
        "50%,text,text,12.3,,2.3,14.7",
        "50%,rac,rac,,96.0,3.0,99.0",
    ]
    html = (tmp_path / "report" / "report.html").read_text()
    assert "<h3>Seconds of each stage</h3>" in html
    assert '<td class="">96.0</td>' in html
    assert seconds_table(section_of(runs[2])) is None


def test_format_pattern():
    assert [format_pattern(p) for p in ("0.6", "0.125", "2:4", "dense")] == [
        *("60%", "12.5%", "2:4", "dense")
    ]


def test_what_cannot_be_compared_is_kept_apart(tmp_path):
    runs = [
        write_run(tmp_path / "dense", "dense", "dense", 0.9, 1.0),
        write_run(tmp_path / "rac", "0.5", "rac", 0.8, 1.0),
        write_run(tmp_path / "slow", "0.5", "text", 0.7, 1.0),
        write_run(tmp_path / "other", "0.5", "rac", 0.1, 1.0, source="large"),
        write_run(tmp_path / "short", "0.5", "rac", 0.2, 1.0),
    ]
    for run, change in (("slow", {"device": "cuda"}), ("short", {})):
        path = tmp_path / run / "eval" / "embedded.json"
        values = json.loads(path.read_text()) | change
        values["settings"]["max_new_tokens"] = 64 if run == "short" else 320
        path.write_text(json.dumps(values))
    sections = make_sections(read_entries(runs))
    assert [[e.run for e in s.entries] for s in sections] == [
        ["dense", "slow", "rac"], ["other"], ["short"],
    ]  # fmt: skip
    assert "different devices (cpu, cuda)" in sections[0].notes[0]
    assert sections[1].notes == ()
    write_report(runs, tmp_path / "report", reconstruction=False)
    html = (tmp_path / "report" / "report.html").read_text()
    assert "form 3 groups" in html and html.count("Table 1.") == 3
    assert (tmp_path / "report" / "figure1_accuracy_3.png").is_file()


def test_a_dense_run_alone(tmp_path):
    run = write_run(tmp_path / "dense", "dense", "dense", 0.9, 1.0)
    assert len(write_report([run, run], tmp_path / "report")) == 1
    assert not list((tmp_path / "report").glob("*.png"))


def break_run(path, how):
    """Damage a good run directory; returns what the error must say."""
    evaluation, pruned = path / "eval" / "embedded.json", path / "model" / "rac.json"
    if how == "no directory":
        return path.rename(path.with_name("elsewhere")) and "no such run directory"
    if how == "no evaluation":
        return evaluation.unlink() or r"no eval/\*\.json in it; run `rac eval"
    if how == "half an evaluation":
        evaluation.rename(path / "eval" / "embedded.jsonl")
        return "its evaluation is not finished"
    if how == "no JSON":
        return evaluation.write_text("{") and "embedded.json is not valid JSON"
    if how == "no accuracy":
        values = summary("0.5", "rac", 0.5, 1.0, "tiny")
        del values["accuracy"]
        return evaluation.write_text(json.dumps(values)) and "embedded.json: accuracy"
    if how == "no layers":
        values = record("0.5", "rac", "tiny")
        del values["layers"]
        return pruned.write_text(json.dumps(values)) and "rac.json: layers"
    if how == "damaged responses":
        write_responses(path, [True, False]).write_text('{"settings": {}}\n{"index": 0}\n')
        return "embedded.jsonl line 2 is damaged"
    values = summary("0.6", "rac", 0.5, 1.0, "tiny")
    return evaluation.write_text(json.dumps(values)) and "is of 0.6 rac, model/rac.json of 0.5 rac"


@pytest.mark.parametrize(
    "how",
    [
        *("no directory", "no evaluation", "half an evaluation", "no JSON", "no accuracy"),
        *("no layers", "damaged responses", "another model's evaluation"),
    ],
)
def test_broken_runs_are_named_before_anything_is_written(tmp_path, how):
    good = write_run(tmp_path / "good", "dense", "dense", 0.9, 1.0)
    bad = write_run(tmp_path / "bad", "0.5", "rac", 0.5, 1.0)
    message = break_run(bad, how)
    with pytest.raises(UserError, match=message) as caught:
        write_report([good, bad], tmp_path / "report")
    assert str(bad) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()


def test_no_runs(tmp_path):
    with pytest.raises(UserError, match="at least one run directory"):
        write_report([], tmp_path)
