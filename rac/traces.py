"""Traces on disk: one Parquet file, exact token ids, readable by any tool."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from rac.engines.base import Trace
from rac.errors import UserError, first_line
from rac.files import write_atomic

SCHEMA = pyarrow.schema(
    [
        ("index", pyarrow.int64()),
        ("prompt_ids", pyarrow.list_(pyarrow.int32())),
        ("output_ids", pyarrow.list_(pyarrow.int32())),
        ("finish_reason", pyarrow.string()),
        ("prompt", pyarrow.string()),
        ("output", pyarrow.string()),
    ]
)


def vocabulary_hash(tokenizer: Any) -> str:
    """A short hash of the tokenizer's id table: ids of two models mean the same iff it agrees."""
    table = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(repr(table).encode()).hexdigest()[:16]


def write_traces(path: Path, traces: list[Trace], tokenizer: Any, **metadata: str) -> None:
    """Write `traces`, ordered by index, with their texts and `metadata` about the file."""
    ordered = sorted(traces, key=lambda trace: trace.index)
    columns = {
        "index": [t.index for t in ordered],
        "prompt_ids": [t.prompt_ids for t in ordered],
        "output_ids": [t.output_ids for t in ordered],
        "finish_reason": [t.finish_reason for t in ordered],
        "prompt": [tokenizer.decode(t.prompt_ids) for t in ordered],
        "output": [tokenizer.decode(t.output_ids) for t in ordered],
    }
    metadata["vocabulary"] = vocabulary_hash(tokenizer)
    table = pyarrow.table(columns, schema=SCHEMA.with_metadata(metadata))
    with write_atomic(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def traces_complete(path: Path) -> bool:
    """Whether `path` holds all traces of its run, not only those finished so far."""
    if not path.is_file():
        return False
    metadata = pyarrow.parquet.read_schema(path).metadata or {}
    return metadata.get(b"complete") == b"yes"


def read_traces(path: Path, tokenizer: Any | None = None) -> list[Trace]:
    """Read a trace file; with `tokenizer`, check that its ids mean the same to that model.

    Raises:
        UserError: the file is missing or not a trace file, or comes from another vocabulary.
    """
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read the traces in {path}: {first_line(error)}") from error
    missing = {"prompt_ids", "output_ids"} - set(table.column_names)
    if missing:
        raise UserError(f"{path} is not a trace file: it has no column {', '.join(missing)}")
    vocabulary = (table.schema.metadata or {}).get(b"vocabulary")
    if tokenizer is not None and vocabulary and vocabulary.decode() != vocabulary_hash(tokenizer):
        raise UserError(
            f"{path} was made with another vocabulary, so its token ids mean something else here; "
            "use traces of a model with the same tokenizer"
        )
    prompts, outputs = (_token_ids(table, name, path) for name in ("prompt_ids", "output_ids"))
    largest = max((i for ids in (*prompts, *outputs) for i in ids), default=0)
    if tokenizer is not None and not vocabulary and largest >= len(tokenizer):
        raise UserError(
            f"{path} holds the token id {largest}, and this model's tokenizer has {len(tokenizer)} "
            "tokens; use traces of a model with the same tokenizer"
        )
    rows = table.select([n for n in table.column_names if not n.endswith("_ids")]).to_pylist()
    return [
        Trace(row.get("index", number), *ids, row.get("finish_reason") or "stop")
        for number, (row, *ids) in enumerate(zip(rows, prompts, outputs, strict=True))
    ]


def _token_ids(table: pyarrow.Table, name: str, path: Path) -> list[list[int]]:
    column = table.column(name)
    try:
        ids = column.cast(pyarrow.list_(pyarrow.int64()))
        holes = ids.null_count + pyarrow.compute.list_flatten(ids).null_count
    except pyarrow.ArrowException:
        holes = 1
    if holes:
        raise UserError(f"{path}: expected {name} to hold lists of token ids, got {column.type}")
    return ids.to_pylist()
