"""Prompts: the embedded set, a file of rows, or a `datasets` name, as token ids."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from rac.assets.problems import generate_problems
from rac.assets.text import generate_text
from rac.errors import UserError, first_line
from rac.rows import has_format, read_file

PROMPT_COLUMNS = ("prompt", "messages", "problem", "question", "text")
_MESSAGE_KEYS = ("role", "content")


@dataclass(frozen=True)
class Prompt:
    """One prompt: its text, its token ids (chat template applied), and the answer if known."""

    text: str
    ids: list[int]
    answer: str | None = None


def render(tokenizer: Any, prompt: str | list[dict], raw: bool = False) -> list[int]:
    """Token ids of one prompt, chat template applied and generation prompt added unless `raw`.

    Raises:
        UserError: the tokenizer has no chat template, or it refuses the messages.
    """
    if raw:
        text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
        return tokenizer(text)["input_ids"]
    if not tokenizer.chat_template:
        raise UserError(
            "the tokenizer has no chat template; pass --raw-prompts to use the prompts as they are"
        )
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise UserError(
            f"the model's chat template refuses a prompt: {first_line(error)}; change its messages "
            "or pass --raw-prompts"
        ) from error
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def load_prompts(
    source: str,
    tokenizer: Any,
    *,
    column: str | None = None,
    raw: bool = False,
    max_tokens: int | None = None,
    context: int | None = None,
) -> list[Prompt]:
    """Load problem prompts from `source`, up to the one that brings them to `max_tokens` tokens.

    Prompts that do not leave room for an answer in `context` do not count towards `max_tokens`.

    `source` is "embedded", a .jsonl, .json, .parquet or .csv file, or a `datasets` name or folder,
    written `name[:config][@split]`. A row has its prompt in `column`, by default the first of
    prompt, messages, problem, question, text; `answer` is kept where there is one.

    Raises:
        UserError: the source, the column or the chat template is missing, or a row is malformed.
    """
    if source == "embedded":
        problems = generate_problems("calibration")
        rows: Iterator[dict] = ({"prompt": p.prompt, "answer": p.answer} for p in problems)
    else:
        rows = read_rows(source)
    if source == "embedded" and max_tokens is None:
        raise ValueError("load_prompts: the embedded problems never end, so give max_tokens")
    prompts: list[Prompt] = []
    tokens = 0
    for number, row in enumerate(rows, 1):
        value = row[_column(row, column, source, number)]
        if not _well_formed(value):
            raise UserError(
                f"{source}, row {number}: expected a non-empty text or a list of "
                f"{{role, content}} messages, got {type(value).__name__}"
            )
        answer = row.get("answer")
        text = value if isinstance(value, str) else value[-1]["content"]
        ids = render(tokenizer, value, raw)
        prompts.append(Prompt(text, ids, None if answer is None else str(answer)))
        tokens += len(ids) if context is None or len(ids) < context else 0
        if max_tokens is not None and max(tokens, number) >= max_tokens:
            break
    if not prompts:
        raise UserError(f"{source} has no rows: give a file with at least one prompt")
    return prompts


def load_text(
    source: str, tokenizer: Any, *, column: str | None = None, max_tokens: int, context: int
) -> list[list[int]]:
    """Token ids of generic text documents, the baseline calibration, `max_tokens` in all or more.

    Each is cut at its end to the model's `context`.

    "embedded" generates them; otherwise `source` is as for `load_prompts`, its text in `column`
    ("text" by default).
    """
    if source == "embedded":
        documents: Iterator[str] = generate_text("calibration")
    else:
        documents = _documents(source, column or "text")
    sequences: list[list[int]] = []
    tokens = 0
    for document in documents:
        ids = tokenizer(document)["input_ids"][:context] if document else []
        if ids:
            sequences.append(ids)
        tokens += len(ids)
        if tokens >= max_tokens:
            break
    if not sequences:
        raise UserError(f"{source} has no text: give a file with a 'text' in each row")
    return sequences


def _documents(source: str, column: str) -> Iterator[str]:
    for number, row in enumerate(read_rows(source), 1):
        value = row[_column(row, column, source, number)]
        if not isinstance(value, str):
            kind = type(value).__name__
            raise UserError(f"{source}, row {number}: expected text in {column!r}, got {kind}")
        yield value


def _well_formed(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(k), str) for k in _MESSAGE_KEYS)


def _column(row: dict, column: str | None, source: str, number: int) -> str:
    wanted = (column,) if column else PROMPT_COLUMNS
    for name in wanted:
        if name in row:
            return name
    raise UserError(
        f"{source}, row {number}: no {' or '.join(wanted)} among its columns "
        f"({', '.join(row)}); name one with --prompt-column"
    )


def read_rows(source: str) -> Iterator[dict]:
    """Rows of a file that `rac.rows` reads, or of a `datasets` source `name[:config][@split]`.

    Raises:
        UserError: it does not exist, cannot be reached, or a line is not a JSON object.
    """
    path = Path(source)
    if has_format(path):
        yield from (row.values for row in read_file(path))
    else:
        yield from _read_dataset(source)


def _read_dataset(source: str) -> Iterator[dict]:
    import datasets

    location, _, split = source.partition("@")
    name, _, config = location.partition(":")
    try:
        if (Path(name) / "dataset_dict.json").is_file():
            data = datasets.load_from_disk(name)[split or "train"]
        elif (Path(name) / "dataset_info.json").is_file():
            data = datasets.load_from_disk(name)
        else:
            # streaming: only the rows that the token budget asks for are read
            data = datasets.load_dataset(
                name, config or None, split=split or "train", streaming=True
            )
        yield from data
    except Exception as error:  # hub, network and format errors of many kinds
        raise UserError(
            f"--prompts {source}: neither a .jsonl/.parquet file nor a data set that can be "
            f"loaded ({first_line(error)})"
        ) from error
