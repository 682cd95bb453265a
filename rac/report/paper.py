"""What the paper itself reports, to be laid beside our numbers; none of it was measured here.

Source: "Reasoning Models Can Be Accurately Pruned via Chain-of-Thought Reconstruction" (preprint),
Tables 1, 2 and 3: DeepSeek-R1-Distill models, 50% unstructured sparsity, SparseGPT.
"""

from typing import NamedTuple

TITLE = "Reasoning Models Can Be Accurately Pruned via Chain-of-Thought Reconstruction"


class Reported(NamedTuple):
    """Accuracy and evaluation minutes as (dense, text, prompt, rac); None: not in the paper."""

    benchmark: str
    model: str
    accuracy: tuple[float | None, ...]
    minutes: tuple[float | None, ...]


AT_50_PERCENT = (
    Reported("MATH-500, acc@1:1", "1.5B", (0.832, 0.356, 0.496, 0.664), (22.6, 156.5, 154.8, 56.7)),
    Reported("MATH-500, acc@1:1", "7B", (0.936, 0.744, 0.812, 0.900), (23.3, 135.0, 115.6, 35.3)),
    Reported("MATH-500, acc@1:1", "14B", (0.941, 0.878, 0.880, 0.910), (50.3, 171.4, 124.1, 84.9)),
    Reported("MATH-500, acc@1:1", "32B", (0.942, None, 0.924, 0.924), (64.3, None, 174.0, 100.6)),
    Reported(
        "LiveCodeBench, pass@1:16",
        "7B",
        (0.374, 0.099, 0.228, 0.283),
        (None, 692.9, 1174.8, 381.2),
    ),
)
OFF_POLICY_7B = 0.876
