"""Result rows: read them, keep the latest, lay them out as Markdown."""

import json
from collections.abc import Iterable
from pathlib import Path


def read_results(folder: Path, name: str) -> list[dict]:
    """The rows of one results file, oldest first; none where it is missing."""
    path = folder / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.strip()]


def latest(rows: Iterable[dict], *keys: str) -> list[dict]:
    """Of rows that agree in `keys`, the last one; in order of first appearance."""
    kept: dict[tuple, dict] = {}
    for row in rows:
        kept[tuple(row.get(key) for key in keys)] = row
    return list(kept.values())


def latest_by_machine(rows: Iterable[dict], *keys: str) -> list[dict]:
    """The same for each machine, one after the other."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(machine_of(row), []).append(row)
    return [row for group in groups.values() for row in latest(group, *keys)]


def latest_of_newest(rows: list[dict], *keys: str) -> list[dict]:
    """The same of the processor that the newest row is from: for what is compared across rows."""
    newest = rows[-1].get("cpu") if rows else None
    return latest((row for row in rows if row.get("cpu") == newest), *keys)


def holds(rows: Iterable[dict], wanted: dict, keys: Iterable[str]) -> bool:
    """Whether one of the rows agrees with `wanted` in `keys`."""
    return any(all(row.get(key) == wanted[key] for key in keys) for row in rows)


def markdown(header: str, rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, "" without rows; `header` is "name|name>|...", > aligns to the right."""
    names, rows = header.split("|"), list(rows)
    if not rows:
        return ""
    lines = ["| " + " | ".join(name.rstrip(">") for name in names) + " |"]
    lines.append("|" + "|".join("---:" if name.endswith(">") else "---" for name in names) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def processor_of(row: dict) -> str:
    """A processor's name, with the instructions that our kernels used if those are special."""
    name = row["cpu"].split(" x ")[0].replace("(R)", "").removesuffix(" Processor")
    special = row.get("instruction_set") not in (None, "avx2", "baseline")
    return f"{name} ({row['instruction_set'].upper()})" if special else name


def device_name(row: dict) -> str:
    """Where a row was measured."""
    if row.get("device", "cpu") != "cpu":
        return row["gpu"]
    return f"{processor_of(row)}, {row['threads']} thread{'s' * (row['threads'] > 1)}"


def machine_of(row: dict) -> str:
    """What a row was measured on: the GPU's name, or the processor's with the threads used."""
    if row.get("gpu") and str(row.get("device", "")).startswith("cuda"):
        return row["gpu"]
    return f"{processor_of(row)} CPU, {row['threads']} threads"
