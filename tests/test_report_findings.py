"""The pattern that the report looks at, and its first sentence."""

import pytest
from report_runs import write_run

from rac.report.findings import summary as sentence
from rac.report.findings import telling_pattern
from rac.report.runs import make_sections, read_entries


def section_of(*runs):
    (section,) = make_sections(read_entries(runs))
    return section


@pytest.mark.parametrize(
    ("rac", "expected"),
    [
        ({"0.3": 0.9, "0.5": 0.5, "0.6": 0.1}, "0.5"),
        ({"0.3": 0.9, "0.5": 0.5, "2:4": 0.45}, "2:4"),  # as sparse as 0.5, and harder
        ({"0.3": 0.2, "0.5": 0.3, "0.6": 0.1}, "0.5"),  # none keeps half: the most accurate
    ],
)
def test_telling_pattern(tmp_path, rac, expected):
    runs = [write_run(tmp_path / "dense", "dense", "dense", 0.9, 1.0)]
    runs += [write_run(tmp_path / f"r{p[-1]}", p, "rac", a, 1.0) for p, a in rac.items()]
    section = section_of(*runs)
    assert telling_pattern(section) == expected
    assert telling_pattern(section, ["0.3"]) == "0.3"
    assert telling_pattern(section, []) is None


def test_the_sentence_follows_the_numbers(tmp_path):
    runs = [
        write_run(tmp_path / "text", "0.5", "text", 0.9, 1.0),
        write_run(tmp_path / "rac", "0.5", "rac", 0.2, 3.0),
    ]
    assert sentence(section_of(*runs)) == (
        "At 50% sparsity, calibrated on its own chains of thought (rac), the model answers 20.0% "
        "(± 2.8) of 200 problems correctly, against 90.0% (± 2.1) with text. The evaluation takes "
        "3.00 minutes, against 1.00 with text."
    )
    assert sentence(section_of(runs[0])) == (
        "Share of 200 problems answered correctly: 50% text 90.0% (± 2.1)."
    )
