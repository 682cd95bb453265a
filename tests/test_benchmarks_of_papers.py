"""The papers' benchmarks: real or made-up rows in their published formats, and what is refused."""

import gzip
import json
import time
from pathlib import Path

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from rac.errors import UserError
from rac.evaluation import load_task
from rac.evaluation.graders import GRADERS, make_grader
from rac.evaluation.tasks import BENCHMARKS, Settings
from rac.rows import read_file

DATA = Path(__file__).parent / "data"
BOXED = r"Please reason step by step, and put your final answer within \boxed{}."


def test_every_entry_is_whole():
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.grader in GRADERS and benchmark.files and benchmark.columns, name
        assert benchmark.hub.count("/") == 1 and benchmark.split in ("train", "validation", "test")


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("math500", ["6+9i", "(a+5)(b+2)", "(15,-29)", r"-\frac{\pi}{6}", r"\$36"]),
        ("aime24", ["7", "60", "999"]),
        ("gsm8k", ["18", "3", "4", "71", "6250"]),
        ("folio", ["False", "True", "Uncertain"]),
        ("bbh-temporal", ["A", "B", "C", "D"]),
    ],
)
def test_rows_become_questions(name, answers):
    task = load_task(name, DATA)
    assert [q.answer for q in task.questions] == answers
    assert task.settings == Settings(32768, 0.6, 0.95, 1)
    assert len(load_task(name, DATA, limit=2).questions) == 2
    with make_grader(task.grader) as grader:
        for question in task.questions:
            assert isinstance(question.prompt, str)  # one user message, no system prompt
            assert grader.grade(rf"It is \boxed{{{question.answer}}}.", question).correct
            for other in task.questions:
                if other is not question:
                    assert not grader.grade(rf"\boxed{{{other.answer}}}", question).correct


def test_prompts():
    assert load_task("math500", DATA).questions[0].prompt == f"Evaluate $(1+2i)6-3i$.\n{BOXED}"
    assert load_task("gsm8k", DATA).questions[1].prompt.endswith(f"does it take?\n{BOXED}")
    assert load_task("aime24", DATA).questions[1].prompt.startswith("Find the sum of the positive")
    folio = load_task("folio", DATA).questions[0]
    assert folio.prompt.startswith(
        "Premises:\nEvery heron is a bird.\nNo bird in the park is tame.\n"
    )
    assert "\n\nConclusion:\nHilda is tame.\n\n" in folio.prompt
    assert folio.prompt.endswith('"Answer: X", where X is True, False or Uncertain.')
    temporal = load_task("bbh-temporal", DATA).questions[0]
    assert "\n(D) " in temporal.prompt and "where X is the letter" in temporal.prompt
    assert temporal.reference == ["A", "B", "C", "D"]


def test_musique_is_closed_book_and_drawn_by_seed(tmp_path):
    task = load_task("musique", DATA)
    assert task.grader == "f1" and len(task.questions) == 3
    thames = next(q for q in task.questions if q.answer == "the Thames")
    assert thames.reference == ["River Thames", "Thames"]
    assert all("Made up" not in q.prompt and "closed book" not in q.prompt for q in task.questions)
    path = tmp_path / "musique.json"  # the pool of 1000 that the paper draws from is a JSON list
    path.write_text(json.dumps([{"question": f"q{i}?", "answer": f"a{i}"} for i in range(1000)]))
    drawn = load_task("musique", path)
    assert len({q.prompt for q in drawn.questions}) == len(drawn.questions) == 100
    assert drawn == load_task("musique", tmp_path)
    other = load_task("musique", path, seed=1)
    assert other.digest != drawn.digest
    assert [q.answer for q in drawn.questions] != [f"a{i}" for i in range(100)]
    assert load_task("musique", path, limit=7).questions == drawn.questions[:7]
    assert load_task("musique", path, limit=300).questions[:100] == drawn.questions


def test_one_benchmark_in_every_format(tmp_path):
    rows = [row.values for row in read_file(DATA / "math500.jsonl")]
    columns = [{key: row[key] for key in ("problem", "answer")} for row in rows]
    expected = load_task("math500", DATA / "math500.jsonl").questions
    lines = (DATA / "math500.jsonl").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "b.json").write_bytes(lines)  # JSON lines under another name
    (tmp_path / "c.json").write_text(json.dumps(rows))
    (tmp_path / "d.json").write_text(json.dumps({"canary": "x", "examples": rows}))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "e.parquet")
    (tmp_path / "f.parquet.gz").write_bytes(gzip.compress((tmp_path / "e.parquet").read_bytes()))
    quoted = [",".join(f'"{v}"' for v in row.values()) for row in columns]
    (tmp_path / "g.csv").write_text("\ufeff" + "\n".join(["problem,answer", *quoted]) + "\n")
    for path in sorted(tmp_path.iterdir()):
        assert load_task("math500", path).questions == expected, path


def test_other_spellings_of_a_format(tmp_path):
    (tmp_path / "aime.jsonl").write_text('{"id": 60, "problem": "One?", "answer": "007"}\n')
    assert load_task("aime24", tmp_path).questions[0].answer == "7"  # HuggingFaceH4's columns
    row = {"premises": "A is B.\nB is C.", "conclusion": "A is C.", "label": "Unknown"}
    (tmp_path / "folio_v2_validation.jsonl").write_text(json.dumps(row))
    question = load_task("folio", tmp_path).questions[0]  # the hub's file: premises as lines
    assert question.answer == "Uncertain" and "Premises:\nA is B.\nB is C.\n\n" in question.prompt


def test_the_file_in_a_folder(tmp_path):
    row = '{"question": "1+1?", "answer": "#### 2"}\n'
    (tmp_path / "main").mkdir()
    for name in ("test", "train"):
        table = pyarrow.Table.from_pylist([{"question": f"{name}?", "answer": "#### 1,000"}])
        pyarrow.parquet.write_table(table, tmp_path / "main" / f"{name}-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text("not rows")
    question = load_task("gsm8k", tmp_path).questions[0]  # a clone of the hub's repository
    assert question.prompt.startswith("test?") and question.answer == "1000"
    (tmp_path / "two").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "two" / name).write_text(row)
    with pytest.raises(UserError, match=r"several files for gsm8k \(a.jsonl, b.jsonl\); name one"):
        load_task("gsm8k", tmp_path / "two")
    (tmp_path / "none").mkdir()
    with pytest.raises(
        UserError, match=r"no file for gsm8k: it needs .* columns question and answer"
    ):
        load_task("gsm8k", tmp_path / "none")


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("math500", {"problem": "x"}, "line 2: no column 'answer'; it has problem"),
        ("math500", {"problem": "x", "answer": ""}, "line 2: 'answer' must be text that is not"),
        ("math500", {"problem": None, "answer": "1"}, "line 2: 'problem' must be text .* got None"),
        (
            "aime24",
            {"Problem": "x", "Answer": 1000},
            "line 2: an AIME answer is an integer of 0 to",
        ),
        ("aime24", {"Problem": "x", "Answer": "½"}, "line 2: an AIME answer"),
        ("gsm8k", {"question": "x", "answer": "18"}, "line 2: 'answer' has no result after ####"),
        ("gsm8k", {"question": "x", "answer": "18 #### "}, "line 2: 'answer' has no result"),
        (
            "folio",
            {"premises": [], "conclusion": "x", "label": "True"},
            "line 2: 'premises' is empty",
        ),
        ("folio", {"premises": [1], "conclusion": "x", "label": "True"}, "a list of texts"),
        (
            "folio",
            {"premises": ["a"], "conclusion": "x", "label": "maybe"},
            "line 2: 'label' must be",
        ),
        ("bbh-temporal", {"input": "x", "target": "(E)"}, "line 2: 'target' must be one of"),
        ("musique", {"question": "x", "answer": "y", "answer_aliases": "z"}, "a list of texts"),
    ],
)
def test_rows_that_are_refused(tmp_path, task, row, message):
    source = next(path for path in DATA.iterdir() if task.split("-")[-1][:4] in path.name)
    good = next(read_file(source)).values
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=message) as caught:
        load_task(task, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_files(tmp_path):
    whole = gzip.compress((DATA / "math500.jsonl").read_bytes())
    for name, content, message in (
        ("cut.jsonl.gz", whole[: len(whole) // 2], "cut or damaged, fetch it again"),
        ("bad.jsonl.gz", b"no gzip at all", "cut or damaged, fetch it again"),
        ("flip.jsonl.gz", whole[:40] + bytes(20) + whole[60:], "cut or damaged"),
        ("rows.json", b'[{"problem": "x", "ans', "rows.json: not valid JSON"),
        ("list.json", b'[{"problem": "x", "answer": "1"}, 3]', "list.json, row 2: expected a JSON"),
        ("latin.csv", b"problem,answer\nx,1\n\xe9t\xe9,2\n", "latin.csv, line 3: not UTF-8"),
        ("short.csv", b"problem,answer\nx,1\ny\n", "short.csv, line 3: the row does not have"),
        ("open.csv", b'problem,answer\nx,"1\n', "open.csv, line 2: not valid CSV"),
        ("rows.parquet", b"PAR1 not really", "cannot read .*rows.parquet as Parquet"),
        ("rows.txt", b"x", r"rows.txt is none of .jsonl, .json, .parquet, .csv"),
        ("empty.jsonl", b"\n", "empty.jsonl has no rows for math500"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_task("math500", tmp_path / name)
    with pytest.raises(UserError, match="cannot read .*gone.jsonl"):
        load_task("math500", tmp_path / "gone.jsonl")


def test_without_a_hub_the_file_to_give_is_named_at_once(monkeypatch):
    def refuse(self, repo, timeout):
        raise ConnectionError(f"no route to {repo}\nsecond line")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        load_task("gsm8k")
    assert time.monotonic() - start < 10
    assert str(caught.value) == (
        "gsm8k: cannot load openai/gsm8k from the hub (no route to openai/gsm8k); give its file "
        "with --data: main/test*.parquet of openai/gsm8k, or its rows as JSONL, JSON, Parquet or "
        "CSV (also .gz), with the columns question and answer (ending in #### and the result)"
    )


def test_rows_from_the_hub(monkeypatch):
    import datasets

    asked = []

    def load(hub, config, split):
        asked.append((hub, config, split))
        return datasets.Dataset.from_list(
            [{"input": "Which?\n(A) x", "target": "(A)"}, {"input": "y"}]
        )

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, hub, timeout: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match="lukaemon/bbh, row 2: 'target' must be text"):
        load_task("bbh-temporal")
    assert asked == [("lukaemon/bbh", "temporal_sequences", "test")]
