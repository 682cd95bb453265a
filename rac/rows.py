"""Rows of a JSON, JSONL, Parquet or CSV file, each with the place it stands at."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rac.errors import UserError, first_line

FORMATS = (".jsonl", ".json", ".parquet", ".csv")


@dataclass(frozen=True)
class Row:
    """One row: its values by column, and `where` it stands ("test.jsonl, line 7")."""

    values: dict[str, Any]
    where: str

    def get(self, *columns: str) -> Any:
        """The value of the first of `columns` that the row has.

        Raises:
            UserError: it has none of them.
        """
        for column in columns:
            if column in self.values:
                return self.values[column]
        wanted = " or ".join(map(repr, columns))
        raise UserError(f"{self.where}: no column {wanted}; it has {', '.join(self.values)}")

    def text(self, *columns: str) -> str:
        """The text of the first of `columns` that the row has.

        Raises:
            UserError: it has none of them, or that one is empty or of another type.
        """
        value = self.get(*columns)
        name = next(column for column in columns if column in self.values)
        if not isinstance(value, str) or not value.strip():
            raise UserError(
                f"{self.where}: {name!r} must be text that is not empty, got {value!r:.80}"
            )
        return value

    def text_or_number(self, *columns: str) -> str:
        """As `text`, but a number becomes its text."""
        value = self.get(*columns)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return str(value) if number else self.text(*columns)

    def texts(self, column: str) -> list[str]:
        """The texts of the list in `column`, which may be empty.

        Raises:
            UserError: it is missing or not a list of texts.
        """
        value = self.get(column)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise UserError(f"{self.where}: {column!r} must be a list of texts, got {value!r:.80}")
        return value


def has_format(path: Path) -> bool:
    """Whether the name ends like a file that `read_file` reads; the file need not exist."""
    return _format(path) in FORMATS


def read_file(path: Path) -> Iterator[Row]:
    """Rows of a .jsonl, .json, .parquet or .csv file, or of one of these with .gz behind.

    A .json file holds a list of objects, an object with such a list as "examples", or JSON lines.

    Raises:
        UserError: it cannot be read, is damaged, or a line is not a row; names file and line.
    """
    if not has_format(path) and path.exists():
        raise UserError(f"{path} is none of {', '.join(FORMATS)} (or one of these with .gz)")
    if _format(path) == ".parquet":
        yield from _parquet_rows(path)
        return
    text = _decode(_read_bytes(path), path)
    if _format(path) == ".csv":
        yield from _csv_rows(text, path)
    elif _format(path) == ".json" and (listed := _listed(text, path)) is not None:
        yield from (_row(value, f"{path}, row {n}") for n, value in enumerate(listed, 1))
    else:
        yield from _json_lines(text, path)


def _format(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"cannot read {path}: {first_line(error)}; the file is cut or damaged, fetch it again"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error


def _listed(text: str, path: Path) -> list[Any] | None:
    """The rows of a whole JSON document; None where the text is JSON lines instead."""
    try:
        value = json.loads(text)
    except ValueError as error:
        if text.lstrip()[:1] != "[":
            return None
        raise UserError(f"{path}: not valid JSON ({error})") from error
    if isinstance(value, dict):
        value = value.get("examples")
    return value if isinstance(value, list) else None


def _json_lines(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):  # JSON may hold other line breaks
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error})") from error
        yield _row(value, f"{path}, line {number}")


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return Row(value, where)


def _csv_rows(text: str, path: Path) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            if None in values or None in values.values():
                columns = len(reader.fieldnames or ())
                raise UserError(f"{where}: the row does not have the header's {columns} columns")
            yield Row(values, where)
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.reader.line_num}: not valid CSV ({error})"
        ) from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    source = pyarrow.BufferReader(_read_bytes(path)) if path.suffix == ".gz" else path
    try:
        table = pyarrow.parquet.read_table(source)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path} as Parquet: {first_line(error)}") from error
    number = 0
    for batch in table.to_batches(max_chunksize=1024):
        for values in batch.to_pylist():
            number += 1
            yield Row(values, f"{path}, row {number}")
