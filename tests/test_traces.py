"""The trace file: exact ids, readable by any tool, refused by a model of another vocabulary."""

import pyarrow
import pyarrow.parquet
import pytest
from conftest import CONTEXT, VOCABULARY

from rac.assets.tokenizer import build_tokenizer
from rac.engines import Trace
from rac.errors import UserError
from rac.traces import read_traces, traces_complete, vocabulary_hash, write_traces

TRACES = [
    Trace(1, [3, 20], [30, 31, 2], "stop"),
    Trace(0, [3, 21, 22], [], "prompt"),
    Trace(2, [3], [40], "budget"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(CONTEXT)


def test_round_trip_and_schema(tokenizer, tmp_path):
    path = tmp_path / "traces.parquet"
    write_traces(path, TRACES, tokenizer, model="me", complete="yes")
    assert read_traces(path, tokenizer) == sorted(TRACES, key=lambda t: t.index)
    table = pyarrow.parquet.read_table(path)
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "index": "int64",
        "prompt_ids": "list<element: int32>",
        "output_ids": "list<element: int32>",
        "finish_reason": "string",
        "prompt": "string",
        "output": "string",
    }
    rows = table.to_pylist()
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert rows[1]["output"] == tokenizer.decode([30, 31, 2])
    assert table.schema.metadata[b"model"] == b"me"


def test_completeness(tokenizer, tmp_path):
    path = tmp_path / "traces.parquet"
    assert not traces_complete(path)
    write_traces(path, TRACES[:1], tokenizer, complete="no")
    assert not traces_complete(path)
    write_traces(path, TRACES, tokenizer, complete="yes")
    assert traces_complete(path)


def test_another_vocabulary_is_refused(tokenizer, tmp_path):
    other = build_tokenizer(CONTEXT)
    other.add_tokens(["<|more|>"])
    assert vocabulary_hash(other) != vocabulary_hash(tokenizer)
    assert vocabulary_hash(build_tokenizer(99)) == vocabulary_hash(tokenizer)
    path = tmp_path / "traces.parquet"
    write_traces(path, TRACES, other)
    assert len(read_traces(path)) == 3
    with pytest.raises(UserError, match="another vocabulary"):
        read_traces(path, tokenizer)


def test_a_file_of_another_tool_with_ids_out_of_range(tokenizer, tmp_path):
    """Without our metadata the vocabulary is unknown, but an id that does not exist shows it."""
    path = tmp_path / "theirs.parquet"
    rows = {"prompt_ids": [[5, 6]], "output_ids": [[7, VOCABULARY - 1]]}
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    assert read_traces(path, tokenizer) == [Trace(0, [5, 6], [7, VOCABULARY - 1], "stop")]
    rows["output_ids"] = [[7, VOCABULARY]]
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    with pytest.raises(UserError, match=f"token id {VOCABULARY}, .* has {VOCABULARY} "):
        read_traces(path, tokenizer)


@pytest.mark.parametrize("rows", [{"a": [1]}, {"prompt_ids": [[1]]}])
def test_files_that_hold_no_traces(rows, tokenizer, tmp_path):
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    with pytest.raises(UserError, match="is not a trace file: it has no column"):
        read_traces(path, tokenizer)


@pytest.mark.parametrize(
    "rows",
    [
        {"prompt_ids": ["text"], "output_ids": ["text"]},
        {"prompt_ids": [[1], None], "output_ids": [[1], [2]]},
        {"prompt_ids": [[1.5]], "output_ids": [[2.5]]},
    ],
)
def test_columns_that_hold_no_ids(rows, tokenizer, tmp_path):
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    with pytest.raises(UserError, match="expected prompt_ids to hold lists of token ids"):
        read_traces(path, tokenizer)


def test_missing_and_damaged_files(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"cannot read the traces in .*no\.parquet"):
        read_traces(tmp_path / "no.parquet", tokenizer)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"cannot read the traces in .*bad\.parquet"):
        read_traces(tmp_path / "bad.parquet", tokenizer)
