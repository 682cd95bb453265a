"""FOLIO, BIG-Bench Hard's temporal sequences and MuSiQue, as in "When Reasoning Meets Compression".

The paper (Table 1, sections 4.1 to 4.4, Appendix A) states what is counted and the settings (T=0.6,
top-p 0.95, 32768 tokens, one pass), not its prompts. These ask for a last line "Answer: ...", as
the prompts of simple-evals do, which DeepSeek-R1's report used for such benchmarks.
"""

from rac.errors import UserError
from rac.evaluation.tasks.base import Question
from rac.evaluation.tasks.benchmark import Benchmark
from rac.rows import Row

LETTERS = ("A", "B", "C", "D")
TRUTH_VALUES = ("True", "False", "Uncertain")
FOLIO_LABELS = {"true": "True", "false": "False", "uncertain": "Uncertain", "unknown": "Uncertain"}


def _folio(row: Row) -> Question:
    """Premises are a list in the authors' v0.0 files and lines of one text in the hub's."""
    premises = row.get("premises")
    if isinstance(premises, str):
        premises = premises.splitlines()
    elif premises:
        premises = row.texts("premises")
    stated = [each.strip() for each in premises or () if each.strip()]
    if not stated:
        raise UserError(f"{row.where}: 'premises' is empty")
    label = row.text("label").strip()
    if label.lower() not in FOLIO_LABELS:
        raise UserError(f"{row.where}: 'label' must be True, False or Uncertain, got {label!r}")
    prompt = (
        "Premises:\n" + "\n".join(stated) + f"\n\nConclusion:\n{row.text('conclusion').strip()}\n\n"
        "Judge by the premises alone: is the conclusion True, False or Uncertain? Think step by "
        'step. End with a line "Answer: X", where X is True, False or Uncertain.'
    )
    return Question(prompt, FOLIO_LABELS[label.lower()], list(TRUTH_VALUES))


def _temporal(row: Row) -> Question:
    answer = row.text("target").strip().strip("()")
    if answer not in LETTERS:
        raise UserError(f"{row.where}: 'target' must be one of (A) to (D), got {answer!r}")
    prompt = (
        f"{row.text('input').strip()}\n\nThink step by step. End with a line "
        '"Answer: X", where X is the letter of the right option.'
    )
    return Question(prompt, answer, list(LETTERS))


def _musique(row: Row) -> Question:
    """Closed book: the question without its paragraphs."""
    prompt = (
        f"{row.text('question').strip()}\n\nThink step by step. End with a line "
        '"Answer: X", where X is the answer in a few words.'
    )
    aliases = row.texts("answer_aliases") if row.values.get("answer_aliases") else []
    return Question(prompt, row.text_or_number("answer"), aliases)


REASONING = {
    # The paper counts 203 questions and cites the hub's data set (FOLIO v2: 1001/203/226 rows); the
    # v0.0 file of the authors' repository has 204. Whichever is given is asked whole.
    "folio": Benchmark(
        hub="yale-nlp/FOLIO",
        split="validation",
        files=("folio_v2_validation.jsonl", "*folio*validation*"),
        columns="premises, conclusion and label",
        question=_folio,
        grader="choice",
    ),
    "bbh-temporal": Benchmark(
        hub="lukaemon/bbh",
        config="temporal_sequences",
        split="test",
        files=("temporal_sequences/test*.parquet", "*temporal_sequences.json*"),
        columns="input and target",
        question=_temporal,
        grader="choice",
    ),
    # The paper draws 100 of the 1000 questions that HippoRAG published as musique.json; the hub and
    # the official file hold the whole development set of 2417.
    "musique": Benchmark(
        hub="dgslibisey/MuSiQue",
        split="validation",
        files=("musique.json", "musique_ans_v1.0_dev.jsonl*"),
        columns="question, answer and answer_aliases",
        question=_musique,
        grader="f1",
        sampled=100,
    ),
}
