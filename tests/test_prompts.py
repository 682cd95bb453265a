"""Prompts from every kind of source, chat template applied, and what is said when one is bad."""

import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from conftest import CONTEXT

from rac.assets.problems import generate_problems
from rac.assets.tokenizer import build_tokenizer
from rac.errors import UserError
from rac.prompts import load_prompts, load_text, render


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(CONTEXT)


ROWS = [{"prompt": "1+1?", "answer": 2}, {"prompt": "2+2?", "answer": "4"}, {"prompt": "a"}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_chat_template_is_applied(tokenizer):
    text = "<|user|>1+1?<|assistant|><think>\n"
    ids = render(tokenizer, "1+1?")
    assert tokenizer.decode(ids) == text and len(ids) == 4 + 4
    assert render(tokenizer, [{"role": "user", "content": "1+1?"}]) == ids
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert tokenizer.decode(render(tokenizer, turns)) == (
        "<|user|>a<|assistant|>b<|end|><|assistant|><think>\n"
    )
    assert tokenizer.decode(render(tokenizer, "1+1?", raw=True)) == "1+1?"


def test_a_template_that_refuses_the_messages():
    strict = build_tokenizer(CONTEXT)
    strict.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(UserError, match="chat template refuses a prompt: no system role; change"):
        render(strict, "a")


def test_no_chat_template_names_the_remedy():
    plain = build_tokenizer(CONTEXT)
    plain.chat_template = None
    with pytest.raises(UserError, match="no chat template; pass --raw-prompts"):
        render(plain, "a")
    assert plain.decode(render(plain, "a b", raw=True)) == "a b"


def test_jsonl(tokenizer, tmp_path):
    prompts = load_prompts(write(tmp_path / "p.jsonl", ROWS), tokenizer)
    assert [(p.text, p.answer) for p in prompts] == [("1+1?", "2"), ("2+2?", "4"), ("a", None)]
    assert prompts[0].ids == render(tokenizer, "1+1?")


def test_messages(tokenizer, tmp_path):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    prompts = load_prompts(write(tmp_path / "p.jsonl", [{"messages": messages}]), tokenizer)
    assert prompts[0].text == "hi" and prompts[0].ids == render(tokenizer, messages)


def test_unicode_line_breaks_inside_json_strings(tokenizer, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a\u2028b\x85c"}\r\n\n{"prompt": "d"}', encoding="utf-8")
    assert [p.text for p in load_prompts(str(path), tokenizer)] == ["a\u2028b\x85c", "d"]


def test_parquet(tokenizer, tmp_path):
    path = tmp_path / "p.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[1:]), path)
    prompts = load_prompts(str(path), tokenizer)
    assert [(p.text, p.answer) for p in prompts] == [("2+2?", "4"), ("a", None)]


def test_datasets_folders(tokenizer, tmp_path):
    rows = [{"problem": r["prompt"], "n": i} for i, r in enumerate(ROWS)]
    data = datasets.Dataset.from_list(rows)
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": data, "test": data.select([2])}).save_to_disk(tmp_path / "both")
    (tmp_path / "files").mkdir()
    write(tmp_path / "files" / "train.jsonl", rows)
    for name in ("saved", "both", "files"):
        prompts = load_prompts(str(tmp_path / name), tokenizer)
        assert [p.text for p in prompts] == ["1+1?", "2+2?", "a"], name
    assert [p.text for p in load_prompts(f"{tmp_path}/both@test", tokenizer)] == ["a"]
    with pytest.raises(UserError, match="both@nope: neither"):
        load_prompts(f"{tmp_path}/both@nope", tokenizer)


def test_the_column_is_chosen_in_order_or_by_name(tokenizer, tmp_path):
    row = {"text": "t", "question": "q", "problem": "p", "other": "o"}
    path = write(tmp_path / "p.jsonl", [row])
    assert load_prompts(path, tokenizer)[0].text == "p"
    assert load_prompts(path, tokenizer, column="other")[0].text == "o"
    with pytest.raises(UserError, match=r"row 1: no missing among its columns \(text, question"):
        load_prompts(path, tokenizer, column="missing")


def test_embedded_problems(tokenizer):
    prompts = load_prompts("embedded", tokenizer, max_tokens=1000)
    problems = generate_problems("calibration")
    assert [p.text for p in prompts] == [next(problems).prompt for _ in prompts]
    assert sum(len(p.ids) for p in prompts[:-1]) < 1000 <= sum(len(p.ids) for p in prompts)


def test_prompts_longer_than_the_context_do_not_count(tokenizer, tmp_path):
    path = write(tmp_path / "p.jsonl", [{"prompt": n * "a"} for n in (50, 2, 50, 3, 4, 5)])
    prompts = load_prompts(path, tokenizer, raw=True, max_tokens=9, context=10)
    assert [len(p.ids) for p in prompts] == [50, 2, 50, 3, 4]
    assert len(load_prompts("embedded", tokenizer, max_tokens=50, context=5)) == 50  # and it ends


def test_text(tokenizer, tmp_path):
    path = write(tmp_path / "t.jsonl", [{"text": "abc"}, {"text": ""}, {"text": "defg"}])
    sequences = load_text(path, tokenizer, context=256, max_tokens=100)
    assert [tokenizer.decode(ids) for ids in sequences] == ["abc", "defg"]
    assert len(load_text(path, tokenizer, context=256, max_tokens=3)) == 1
    assert load_text(path, tokenizer, context=2, max_tokens=4) == [s[:2] for s in sequences]
    embedded = load_text("embedded", tokenizer, context=256, max_tokens=2000)
    assert sum(map(len, embedded)) >= 2000 > sum(map(len, embedded[:-1]))


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"prompt": "a"}\n{"prompt": \n', r"p\.jsonl, line 2: not valid JSON"),
        (b'{"prompt": "a"}\n\n[1]\n', r"p\.jsonl, line 3: expected a JSON object"),
        (b'{"prompt": "a"}\n{"prompt": ""}', r"p\.jsonl, row 2: expected a non-empty text"),
        (b'{"prompt": 3}', r"row 1: expected a non-empty text .* got int"),
        (b'{"messages": ["a"]}', "row 1: expected .* got list"),
        (b'{"messages": [{"content": null, "role": "user"}]}', "row 1: expected"),
        (b'{"messages": [{"content": "no role"}]}', "row 1: expected"),
        (b'{"x": 1, "y": 2}', r"row 1: no prompt or messages .* columns \(x, y\); name one with"),
        (b"", "has no rows"),
        (b'{"prompt": "\xff"}', r"p\.jsonl, line 1: not UTF-8"),
    ],
)
def test_malformed_files(content, message, tokenizer, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_prompts(str(path), tokenizer)


def test_malformed_text(tokenizer, tmp_path):
    path = write(tmp_path / "t.jsonl", [{"text": "a"}, {"text": ["b"]}])
    with pytest.raises(UserError, match="row 2: expected text in 'text', got list"):
        load_text(path, tokenizer, context=256, max_tokens=99)
    with pytest.raises(UserError, match="has no text"):
        path = write(tmp_path / "e.jsonl", [{"text": ""}])
        load_text(path, tokenizer, context=256, max_tokens=9)


@pytest.mark.parametrize("name", ["no.jsonl", "no.parquet", "no_such_data_set", "no/such:thing@x"])
def test_missing_sources(name, tokenizer, tmp_path):
    with pytest.raises(UserError, match="no.jsonl|no.parquet|no_such_data_set|no/such:thing@x"):
        load_prompts(str(tmp_path / name) if "." in name else name, tokenizer)


def test_a_damaged_parquet_file(tokenizer, tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"cannot read .*p\.parquet as Parquet"):
        load_prompts(str(tmp_path / "p.parquet"), tokenizer)
