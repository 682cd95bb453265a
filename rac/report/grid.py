"""A table of ours beside the paper's, and its forms as CSV and Markdown."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Cell:
    """Our number as text ("" where there is none), its standard error, and the paper's number.

    `best` marks the best of its row; a cell covers `span` columns.
    """

    text: str = ""
    stderr: str = ""
    paper: str = ""
    best: bool = False
    span: int = 1


@dataclass(frozen=True)
class Row:
    """Labels on the left, then cells whose spans add up to the table's columns."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    dense: bool = False


@dataclass(frozen=True)
class Grid:
    """A table. `name` is its file's, `groups` are (title, column names) from left to right."""

    name: str
    title: str
    heads: tuple[str, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def has_paper(self) -> bool:
        """Whether the paper has a number in it."""
        return any(cell.paper for row in self.rows for cell in row.cells)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' full names."""
        return tuple(f"{group} {name}".strip() for group, names in self.groups for name in names)

    @property
    def starts(self) -> frozenset[int]:
        """The columns in which a group begins."""
        sizes = [len(names) for _, names in self.groups]
        return frozenset(sum(sizes[:index]) for index in range(len(sizes)))

    def placed(self, row: Row) -> Iterator[tuple[int, Cell]]:
        """The cells of a row with the column in which each begins."""
        column = 0
        for cell in row.cells:
            yield column, cell
            column += cell.span


def _every_column(row: Row) -> list[Cell]:
    return [replace(cell, span=1) for cell in row.cells for _ in range(cell.span)]


def to_csv(grid: Grid) -> str:
    """Columns of our numbers, with ` stderr` and ` (paper)` columns where there are any."""
    rows = [_every_column(row) for row in grid.rows]
    parts = []  # (column's name, its index, the cell's field)
    for index, name in enumerate(grid.columns):
        for suffix, attribute in (("", "text"), (" stderr", "stderr"), (" (paper)", "paper")):
            if not suffix or any(getattr(cells[index], attribute) for cells in rows):
                parts.append((name + suffix, index, attribute))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*grid.heads, *(name for name, _, _ in parts)])
    for row, cells in zip(grid.rows, rows, strict=True):
        writer.writerow([*row.labels, *(getattr(cells[i], a) for _, i, a in parts)])
    return buffer.getvalue()


def to_markdown(grid: Grid) -> str:
    """The table with its title; the paper's numbers are in italics."""
    names = (*grid.heads, *grid.columns)
    marks = ["---"] * len(grid.heads) + ["---:"] * len(grid.columns)
    lines = [f"**{grid.title}**", "", _line(names), "|" + "|".join(marks) + "|"]
    for row in grid.rows:
        lines.append(_line((*row.labels, *map(_markdown_cell, _every_column(row)))))
    notes = [grid.note, "In italics: the paper's." if grid.has_paper else ""]
    text = " ".join(note for note in notes if note)
    return "\n".join([*lines, *(("", text) if text else ())]) + "\n"


def _line(texts: tuple[str, ...]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _markdown_cell(cell: Cell) -> str:
    ours = f"**{cell.text}**" if cell.best else cell.text
    ours += f" ± {cell.stderr}" if cell.stderr else ""
    return " ".join(part for part in (ours, f"*{cell.paper}*" if cell.paper else "") if part)
