"""What the paper itself reports of pruned DeepSeek-R1-Distill-Qwen models; not measured here.

Source: "Reasoning Models Can Be Accurately Pruned via Chain-of-Thought Reconstruction" (preprint),
Tables 1 to 5; Figure 1 draws Table 1. All numbers are the paper's, character by character.
"""

import re
from typing import NamedTuple

TITLE = "Reasoning Models Can Be Accurately Pruned via Chain-of-Thought Reconstruction"
CALIBRATIONS = ("text", "prompt", "rac")
TABLES = {"math500": "Table 1", "livecodebench": "Table 2"}

# model sparsity | accuracy (standard error) with C4, prompt, RAC | minutes with C4, prompt, RAC
_TABLE_1 = """
1.5B dense | 0.832 ; 0.832 ; 0.832 | 22.6 ; 22.6 ; 22.6
1.5B 20% | 0.822 (0.017) ; 0.840 (0.016) ; 0.832 (0.017) | 25.6 ; 24.4 ; 22.6
1.5B 30% | 0.762 (0.019) ; 0.788 (0.018) ; 0.822 (0.017) | 31.6 ; 49.9 ; 25.8
1.5B 40% | 0.658 (0.021) ; 0.728 (0.020) ; 0.774 (0.019) | 57.7 ; 65.9 ; 32.1
1.5B 50% | 0.356 (0.021) ; 0.496 (0.022) ; 0.664 (0.021) | 156.5 ; 154.8 ; 56.7
7B dense | 0.936 ; 0.936 ; 0.936 | 23.3 ; 23.3 ; 23.3
7B 20% | 0.902 (0.013) ; 0.928 (0.012) ; 0.934 (0.011) | 23.5 ; 23.5 ; 21.7
7B 30% | 0.904 (0.013) ; 0.922 (0.012) ; 0.934 (0.011) | 27.4 ; 26.8 ; 25.2
7B 40% | 0.890 (0.014) ; 0.898 (0.014) ; 0.912 (0.013) | 38.3 ; 37.4 ; 29.1
7B 50% | 0.744 (0.020) ; 0.812 (0.017) ; 0.900 (0.013) | 135.0 ; 115.6 ; 35.3
14B dense | 0.941 ; 0.941 ; 0.941 | 50.3 ; 50.3 ; 50.3
14B 20% | 0.952 (0.010) ; 0.954 (0.009) ; 0.962 (0.009) | 58.4 ; 56.5 ; 54.7
14B 30% | 0.936 (0.011) ; 0.930 (0.011) ; 0.936 (0.011) | 67.2 ; 64.9 ; 58.7
14B 40% | 0.910 (0.013) ; 0.928 (0.012) ; 0.942 (0.010) | 97.9 ; 73.1 ; 66.3
14B 50% | 0.878 (0.015) ; 0.880 (0.015) ; 0.910 (0.013) | 171.4 ; 124.1 ; 84.9
32B dense | 0.942 (0.011) ; 0.942 (0.011) ; 0.942 (0.011) | 64.3 ; 64.3 ; 64.3
32B 20% | 0.950 (0.010) ; 0.942 (0.011) ; 0.946 (0.010) | 61.4 ; 57.6 ; 58.4
32B 30% | 0.940 (0.011) ; 0.940 (0.011) ; 0.954 (0.009) | 79.0 ; 67.6 ; 66.8
32B 40% | 0.918 (0.012) ; 0.934 (0.011) ; 0.940 (0.011) | 100.2 ; 89.7 ; 70.8
32B 50% | – ; 0.924 (0.012) ; 0.924 (0.012) | – ; 174.0 ; 100.6
"""
_TABLE_2 = """
1.5B dense | 0.161 ; 0.161 ; 0.161 | – ; – ; –
1.5B 20% | 0.148 (0.018) ; 0.156 (0.019) ; 0.155 (0.018) | 305.7 ; 511.9 ; 299.4
1.5B 30% | 0.127 (0.017) ; 0.138 (0.018) ; 0.150 (0.018) | 724.4 ; 685.3 ; 274.5
1.5B 40% | 0.066 (0.011) ; 0.086 (0.013) ; 0.129 (0.017) | 466.8 ; 394.5 ; 277.3
1.5B 50% | 0.004 (0.002) ; 0.024 (0.006) ; 0.093 (0.014) | 464.2 ; 440.3 ; 330.5
7B dense | 0.374 ; 0.374 ; 0.374 | – ; – ; –
7B 20% | 0.362 (0.025) ; 0.367 (0.025) ; 0.364 (0.025) | 591.4 ; 356.6 ; 318.7
7B 30% | 0.335 (0.025) ; 0.341 (0.025) ; 0.361 (0.025) | 348.6 ; 343.4 ; 325.2
7B 40% | 0.273 (0.023) ; 0.300 (0.024) ; 0.333 (0.024) | 485.7 ; 847.8 ; 344.7
7B 50% | 0.099 (0.014) ; 0.228 (0.021) ; 0.283 (0.023) | 692.9 ; 1174.8 ; 381.2
14B dense | 0.513 ; 0.513 ; 0.513 | – ; – ; –
14B 20% | 0.508 (0.027) ; 0.508 (0.027) ; 0.508 (0.027) | 1202.2 ; 1246.6 ; 1254.6
14B 30% | 0.491 (0.027) ; 0.496 (0.027) ; 0.496 (0.027) | 1292.1 ; 1272.8 ; 759.0
14B 40% | 0.447 (0.026) ; 0.471 (0.027) ; 0.480 (0.027) | 1665.4 ; 1441.2 ; 1416.1
14B 50% | 0.319 (0.024) ; 0.385 (0.026) ; 0.424 (0.026) | 1918.8 ; 2472.9 ; 1814.8
"""
# sparsity | on-policy | off-policy; the 7B model, and the 14B model's traces
_TABLE_3 = """
20% | 0.934 (0.011) | 0.930 (0.0114)
30% | 0.934 (0.011) | 0.930 (0.0114)
40% | 0.912 (0.013) | 0.916 (0.0124)
50% | 0.900 (0.013) | 0.876 (0.0148)
"""


class Number(NamedTuple):
    """A number as the paper prints it, and its standard error."""

    text: str
    stderr: str = ""


class Reported(NamedTuple):
    """One cell of Table 1 or 2: accuracy and evaluation minutes; None where the paper has none."""

    accuracy: Number | None
    minutes: Number | None


def size_of(source: str) -> str | None:
    """The paper's name of a dense model ("7B"), from its folder or hub name."""
    found = re.search(r"DeepSeek-R1-Distill-Qwen-(1\.5B|7B|14B|32B)$", source.rstrip("/"), re.I)
    return found[1].upper() if found else None


def _number(text: str) -> Number | None:
    found = re.fullmatch(r"([\d.]+)(?: \(([\d.]+)\))?", text.strip())
    return Number(found[1], found[2] or "") if found else None


def _parse(task: str, table: str) -> dict[tuple[str, str, str, str], Reported]:
    """(task, model, sparsity, calibration) -> the cell; a dense row is the same in all columns."""
    cells = {}
    for line in table.strip().splitlines():
        labels, accuracy, minutes = line.split(" | ")
        model, sparsity = labels.split(" ")
        pairs = zip(accuracy.split(" ; "), minutes.split(" ; "), strict=True)
        for calibration, (first, second) in zip(CALIBRATIONS, pairs, strict=True):
            cell = Reported(_number(first), _number(second))
            cells[task, model, sparsity, "dense" if sparsity == "dense" else calibration] = cell
    return cells


ACCURACY_AND_MINUTES = _parse("math500", _TABLE_1) | _parse("livecodebench", _TABLE_2)
ON_AND_OFF_POLICY = {
    (sparsity, policy): _number(text)
    for sparsity, *texts in (line.split(" | ") for line in _TABLE_3.strip().splitlines())
    for policy, text in zip(("rac", "off-policy"), texts, strict=True)
}

# Table 4, the 14B model, 2:4 in the MLP layers: (row, scope) -> accuracy, tokens a second
SCOPES = {"mlp,first": "First third", "mlp,first-last": "First & last third", "mlp": "Entire model"}
DENSE_THROUGHPUT = "1426"
STRUCTURED = {
    ("RAC", "mlp,first"): (Number("0.950", "0.001"), "1532"),
    ("RAC", "mlp,first-last"): (Number("0.940", "0.012"), "1561"),
    ("RAC", "mlp"): (Number("0.896", "0.014"), "1740"),
    ("Prompt+FP8", "mlp,first"): (Number("0.952", "0.010"), "1532"),
    ("Prompt+FP8", "mlp,first-last"): (Number("0.904", "0.0132"), "1675"),
    ("RAC+FP8", "mlp,first"): (Number("0.950", "0.010"), "1532"),
    ("RAC+FP8", "mlp,first-last"): (Number("0.920", "0.0106"), "1675"),
    ("RAC+FP8", "mlp"): (Number("0.8920", "0.014"), "1823"),
}

# Table 5, the 7B model on MATH-500: (sparsity, calibration), tokens -> accuracy, minutes
BUDGETS = {
    ("dense", "dense", 32768): ("0.936", "23.3"),
    ("dense", "dense", 8192): ("0.904", "10.5"),
    ("dense", "dense", 4096): ("0.824", "8.4"),
    ("40%", "rac", 32768): ("0.912", "29.1"),
    ("40%", "rac", 8192): ("0.898", "10.4"),
    ("40%", "rac", 4096): ("0.836", "8.6"),
}
