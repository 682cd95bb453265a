"""One goal: which rows prove it, and what is wanted of them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes:
        what: the op and its shapes, for people.
        against: the baseline of the ratio.
        file: results/<file>.jsonl has the rows.
        rows: fields that all of them have.
        cases: fields by which they differ: each combination has to be there.
        value: a field, or "a/b": one over the other.
        wanted: the least, or with `most` the most.
        unit: after the number: "x", "%" (of the value times 100), " s".
        device: where it is measured, "cuda" or "cpu".
    """

    what: str
    against: str
    file: str
    value: str
    wanted: float
    rows: dict = dataclasses.field(default_factory=dict)
    cases: dict = dataclasses.field(default_factory=dict)
    most: bool = False
    unit: str = "x"
    device: str = "cuda"

    def measured_by(self, row: dict) -> bool:
        """Whether a row is of this goal's device and has its fields."""
        here = str(row.get("device")).startswith(self.device)
        return here and all(row.get(name) == value for name, value in self.rows.items())

    def of(self, row: dict) -> float | None:
        """The value of a row; None where it lacks a part of it."""
        parts = [row.get(name) for name in self.value.split("/")]
        if any(part is None for part in parts):
            return None
        return float(parts[0]) if len(parts) == 1 else parts[0] / parts[1]

    def show(self, value: float) -> str:
        """A number with its unit."""
        if self.unit == "%":
            return f"{100 * value:.1f}%"
        return f"{value:.2f}{self.unit}"


def shapes(*pairs: tuple[int, int]) -> dict:
    """Cases of R x C."""
    return {("R", "C"): pairs}
