"""What a published benchmark is: where its rows are, and how a row becomes a question."""

from collections.abc import Callable
from dataclasses import dataclass

from rac.evaluation.tasks.base import Question, Settings
from rac.rows import Row


@dataclass(frozen=True)
class Benchmark:
    """One entry of the registry.

    `hub`, `config` and `split` name the data set on the hub. `files` are patterns of the names its
    file is published under, most wanted first (`parts`: a folder's rows are in all files that one
    pattern finds), and `columns` what a row must have. `sampled` is how many questions the protocol
    draws by seed, None: all, in the file's order.
    """

    hub: str
    split: str
    files: tuple[str, ...]
    columns: str
    question: Callable[[Row], Question]
    grader: str
    config: str | None = None
    settings: Settings = Settings()
    sampled: int | None = None
    parts: bool = False
