"""At which sparsity does a model collapse."""

from collections.abc import Mapping
from typing import NamedTuple


class Collapse(NamedTuple):
    """Collapse lies between the sparsities `above` (holds) and `below` (does not).

    `below` is None when no measured sparsity is that bad.
    """

    above: float
    below: float | None

    def __str__(self) -> str:
        if self.below is None:
            return f"not up to {100 * self.above:g}%"
        return f"{100 * self.above:g}–{100 * self.below:g}%"


def collapse_point(scores: Mapping[float, float]) -> Collapse | None:
    """Where the score first falls below half of the dense model's; None without a dense score.

    `scores` maps sparsity (0 is dense) to a score of which more is better.

    Source: "When Reasoning Meets Compression", section 5.2: a model "collapses between 40% and 50%
    sparsity, since its performance drops by more than half". Half of what is not said; half of the
    dense score gives the paper's own intervals from its Table 3 wherever it names one exactly (AIME
    2024: 63.3 dense, 56.7 at 40%, 26.7 at 50%; MuSiQue EM: 13, 14 at 30%, 6 at 40%) and for
    Temporal, where it says "roughly" (95.6 at 60%, 15.6 at 70%). FOLIO it calls "roughly between
    60% and 70%" for R1-Distill-Llama, too; there 49.8 of 78.8 are left at 70%, and this rule says
    70-80%.
    """
    if 0.0 not in scores:
        return None
    last = 0.0
    for sparsity in sorted(scores):
        if scores[sparsity] < scores[0.0] / 2:
            return Collapse(last, sparsity)
        last = sparsity
    return Collapse(last, None)
