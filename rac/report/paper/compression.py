"""What the second paper reports of compressed R1 models; none of it was measured here.

Source: "When Reasoning Meets Compression: Benchmarking Compressed Large Reasoning Models on Complex
Reasoning Tasks", Tables 2 to 5. All numbers are the paper's, character by character.
"""

import re
from typing import NamedTuple

TITLE = "When Reasoning Meets Compression"
TASKS = {
    "aime24": "AIME 2024", "folio": "FOLIO", "bbh-temporal": "Temporal", "musique": "MuSiQue",
}  # fmt: skip
AVERAGED = ("aime24", "folio", "bbh-temporal")
SHORT_LONG_TASKS = ("aime24", "folio", "musique")

# model | parameters | compression | AIME 2024, FOLIO, Temporal, average, MuSiQue (EM, F1)
_TABLE_2 = """
DeepSeek-R1 | 671B | - | 73.3 ; 76.4 ; 99.6 ; 83.1 ; (17.0, 27.51)
DeepSeek-R1 | 671B | 2.51-bit | 76.7 ; 77.8 ; 100.0 ; 84.8 ; (17.0, 24.43)
DeepSeek-R1 | 671B | 1.73-bit | 66.7 ; 78.3 ; 99.6 ; 81.5 ; (15.0, 22.11)
DeepSeek-R1 | 671B | 1.58-bit | 66.7 ; 75.4 ; 94.0 ; 78.7 ; (14.0, 22.34)
R1-Distill-Llama | 70B | Distillation | 63.3 ; 78.8 ; 100.0 ; 80.7 ; (13.0, 21.80)
R1-Distill-Llama | 70B | Distillation & 50% sparse | 26.7 ; 70.9 ; 97.2 ; 64.9 ; (6.0, 12.75)
R1-Distill-Qwen | 32B | Distillation | 66.7 ; 82.3 ; 100.0 ; 83.0 ; (1.0, 9.38)
R1-Distill-Qwen | 32B | Distillation & 50% sparse | 30.0 ; 75.4 ; 96.0 ; 67.1 ; (3.0, 9.29)
"""
# the same with the sparsity
_TABLE_3 = """
R1-Distill-Llama | 70B | 0% | 63.3 ; 78.8 ; 100.0 ; 80.7 ; (13.0, 21.80)
R1-Distill-Llama | 70B | 10% | 60.0 ; 81.3 ; 99.6 ; 80.3 ; (12.0, 21.69)
R1-Distill-Llama | 70B | 30% | 63.3 ; 79.3 ; 99.6 ; 80.7 ; (14.0, 21.40)
R1-Distill-Llama | 70B | 40% | 56.7 ; 73.9 ; 98.8 ; 76.8 ; (6.0, 13.79)
R1-Distill-Llama | 70B | 50% | 26.7 ; 70.9 ; 97.2 ; 64.9 ; (6.0, 12.75)
R1-Distill-Llama | 70B | 60% | 0.0 ; 65.0 ; 95.6 ; 53.5 ; (0.0, 6.42)
R1-Distill-Llama | 70B | 70% | 0.0 ; 49.8 ; 15.6 ; 21.8 ; (0.0, 2.23)
R1-Distill-Llama | 70B | 80% | 0.0 ; 11.8 ; 12.4 ; 8.1 ; (0.0, 0.94)
R1-Distill-Qwen | 32B | 0% | 66.7 ; 82.3 ; 100.0 ; 83.0 ; (1.0, 9.38)
R1-Distill-Qwen | 32B | 10% | 70.0 ; 81.3 ; 100.0 ; 83.8 ; (5.0, 13.19)
R1-Distill-Qwen | 32B | 30% | 56.7 ; 81.3 ; 100.0 ; 79.3 ; (1.0, 10.47)
R1-Distill-Qwen | 32B | 40% | 53.3 ; 78.3 ; 100.0 ; 77.2 ; (2.0, 10.16)
R1-Distill-Qwen | 32B | 50% | 30.0 ; 75.4 ; 96.0 ; 67.1 ; (3.0, 9.29)
R1-Distill-Qwen | 32B | 60% | 0.0 ; 65.0 ; 87.2 ; 50.7 ; (0.0, 4.13)
R1-Distill-Qwen | 32B | 70% | 0.0 ; 32.5 ; 19.6 ; 17.4 ; (0.0, 1.72)
R1-Distill-Qwen | 32B | 80% | 0.0 ; 8.7 ; 2.0 ; 3.6 ; (0.0, 1.29)
"""
# model | compression (D: distillation, sparse) | scores of short and long outputs, ratio of their
# lengths: AIME, FOLIO, MuSiQue
_TABLE_4 = """
DeepSeek-R1 | - | 88.9; 33.3; 5.3; 83.3; 63.3; 8.0; (30.0, 42.8); (3.3, 10.0); 6.4
DeepSeek-R1 | 2.51-bit | 100.0; 33.3; 4.9; 85.0; 71.7; 6.5; (33.3, 41.9); (0.0, 6.9); 7.7
DeepSeek-R1 | 1.73-bit | 88.9; 22.2; 4.4; 86.7; 73.3; 4.9; (30.0, 41.6); (10.0, 23.5); 6.9
DeepSeek-R1 | 1.58-bit | 77.8; 44.4; 3.8; 80.0; 65.0; 5.0; (30.0, 41.5); (10.0, 16.6); 5.9
R1-Distill-Llama | D | 88.9; 11.1; 5.4; 80.0; 80.0; 4.5; (26.7, 38.0); (6.7, 18.4); 4.0
R1-Distill-Llama | D & 10% | 100.0; 0.0; 6.6; 85.0; 78.3; 4.9; (20.0, 29.6); (6.7, 13.7); 7.4
R1-Distill-Llama | D & 30% | 88.9; 11.1; 5.3; 85.0; 76.7; 5.0; (26.7, 36.9); (3.3, 12.5); 8.8
R1-Distill-Qwen | D | 100.0; 11.1; 7.1; 86.7; 75.0; 6.9; (16.7, 24.1); (16.7, 24.7); 7.1
R1-Distill-Qwen | D & 10% | 88.9; 33.3; 4.8; 83.3; 75.0; 5.5; (23.3, 36.7); (3.3, 12.8); 8.1
R1-Distill-Qwen | D & 30% | 88.9; 11.1; 6.8; 86.7; 78.3; 7.8; (26.7, 40.7); (3.3, 9.1); 8.8
"""
_TABLE_5 = """
DeepSeek-R1 | - | 100.0; 16.7; 7.1; 82.5; 57.5; 10.9; (30.0, 42.4); (5.0, 12.5); 8.5
DeepSeek-R1 | 2.51-bit | 100.0; 33.3; 6.6; 87.5; 62.5; 8.6; (40.0, 50.3); (0.0, 4.5); 10.7
DeepSeek-R1 | 1.73-bit | 100.0; 33.3; 5.9; 87.5; 67.5; 6.3; (30.0, 43.7); (5.0, 15.7); 9.3
DeepSeek-R1 | 1.58-bit | 100.0; 33.3; 5.6; 80.0; 72.5; 6.2; (35.0, 46.3); (15.0, 20.0); 7.6
R1-Distill-Llama | D | 83.3; 16.7; 7.0; 82.5; 75.0; 5.7; (35.0, 45.2); (5.0, 9.2); 5.3
R1-Distill-Llama | D & 10% | 100.0; 0.0; 9.2; 90.0; 75.0; 6.3; (20.0, 28.5); (5.0, 11.7); 10.7
R1-Distill-Llama | D & 30% | 100.0; 16.7; 7.1; 90.0; 75.0; 6.4; (20.0, 31.0); (0.0, 7.3); 13.0
R1-Distill-Qwen | D | 100.0; 0.0; 9.8; 87.5; 75.0; 9.0; (20.0, 28.7); (20.0, 24.2); 10.4
R1-Distill-Qwen | D & 10% | 83.3; 33.3; 6.1; 85.0; 75.0; 7.2; (30.0, 36.2); (0.0, 8.4); 12.0
R1-Distill-Qwen | D & 30% | 100.0; 0.0; 8.9; 87.5; 75.0; 11.0; (30.0, 36.6); (5.0, 11.2); 13.4
"""
# as GGUF files name the three quantisations
_BITS = {"Q2_K_XL": "2.51-bit", "IQ1_M": "1.73-bit", "IQ1_S": "1.58-bit"}


class Overall(NamedTuple):
    """A row of Table 2 or 3. `texts` are as printed, "average" among them; `scores` in percent."""

    model: str
    parameters: str
    compression: str
    texts: dict[str, str]

    @property
    def sparsity(self) -> float:
        """The sparsity of a row of Table 3."""
        return float(self.compression.rstrip("%")) / 100

    @property
    def scores(self) -> dict[str, tuple[float, ...]]:
        """Task -> accuracy, of MuSiQue EM and F1."""
        return {
            task: tuple(float(part) for part in re.findall(r"[\d.]+", text))
            for task, text in self.texts.items()
        }


class Analysed(NamedTuple):
    """A row of Table 4 or 5: task -> scores of short and long outputs, and their length ratio."""

    model: str
    compression: str
    texts: dict[str, tuple[str, str, str]]


def family_of(source: str) -> tuple[str, str, str] | None:
    """The paper's model, parameters and compression of a dense or quantised model, by its name."""
    name = source.rstrip("/")
    if re.search(r"DeepSeek-R1-Distill-Llama-70B$", name, re.I):
        return "R1-Distill-Llama", "70B", "Distillation"
    if re.search(r"DeepSeek-R1-Distill-Qwen-32B$", name, re.I):
        return "R1-Distill-Qwen", "32B", "Distillation"
    for mark, bits in _BITS.items():
        if re.search(rf"DeepSeek-R1\b(?!-Distill).*{mark}", name, re.I):
            return "DeepSeek-R1", "671B", bits
    return ("DeepSeek-R1", "671B", "-") if re.search(r"DeepSeek-R1$", name, re.I) else None


def _overall(table: str) -> tuple[Overall, ...]:
    columns = (*AVERAGED, "average", "musique")
    rows = []
    for line in table.strip().splitlines():
        model, parameters, compression, numbers = line.split(" | ")
        texts = dict(zip(columns, numbers.split(" ; "), strict=True))
        rows.append(Overall(model, parameters, compression, texts))
    return tuple(rows)


def _written_out(sparse: str | None) -> str:
    return "Distillation" + (f"{sparse} sparse" if sparse else "")


def _analysed(table: str) -> tuple[Analysed, ...]:
    rows = []
    for line in table.strip().splitlines():
        model, compression, numbers = line.split(" | ")
        texts = numbers.split("; ")
        triples = [tuple(texts[i : i + 3]) for i in range(0, 9, 3)]
        compression = re.sub(r"^D( & \d+%)?", lambda m: _written_out(m[1]), compression)
        rows.append(Analysed(model, compression, dict(zip(SHORT_LONG_TASKS, triples, strict=True))))
    return tuple(rows)


OVERALL = _overall(_TABLE_2)
SPARSITY_LEVELS = _overall(_TABLE_3)
SHORT_AND_LONG = {30: _analysed(_TABLE_4), 20: _analysed(_TABLE_5)}
