r"""MATH-500, AIME 2024 and GSM8K.

Settings: T=0.6, top-p 0.95, 32768 tokens, one sample, no system prompt, no examples (the set-up of
both papers, after DeepSeek-R1's report). Neither paper prints its prompts; DeepSeek-R1's model card
gives the sentence that follows the problem here, for mathematics.
"""

from rac.errors import UserError
from rac.evaluation.tasks.base import Question
from rac.evaluation.tasks.benchmark import Benchmark
from rac.rows import Row

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."
LARGEST_AIME = 999


def ask(problem: str) -> str:
    """The user's message for one problem."""
    return f"{problem.strip()}\n{INSTRUCTION}"


def _math500(row: Row) -> Question:
    return Question(ask(row.text("problem")), row.text_or_number("answer"))


def _aime(row: Row) -> Question:
    answer = row.text_or_number("answer", "Answer").strip()
    if not (answer.isascii() and answer.isdigit() and int(answer) <= LARGEST_AIME):
        raise UserError(f"{row.where}: an AIME answer is an integer of 0 to 999, got {answer!r}")
    return Question(ask(row.text("problem", "Problem")), str(int(answer)))


def _gsm8k(row: Row) -> Question:
    _, mark, answer = row.text("answer").rpartition("####")
    if not mark or not answer.strip():
        raise UserError(f"{row.where}: 'answer' has no result after ####")
    return Question(ask(row.text("question")), answer.strip().replace(",", ""))


MATHEMATICS = {
    "math500": Benchmark(
        hub="HuggingFaceH4/MATH-500",
        split="test",
        files=("test.jsonl", "*math*500*"),
        columns="problem and answer",
        question=_math500,
        grader="math",
    ),
    "aime24": Benchmark(
        hub="HuggingFaceH4/aime_2024",  # Maxwell-Jia/AIME_2024 writes the columns with capitals
        split="train",
        files=("train*.parquet", "*aime*24*"),
        columns="problem and answer",
        question=_aime,
        grader="integer",
    ),
    "gsm8k": Benchmark(
        hub="openai/gsm8k",
        config="main",
        split="test",
        files=("main/test*.parquet", "*gsm8k*test*", "test.jsonl"),
        columns="question and answer (ending in #### and the result)",
        question=_gsm8k,
        grader="math",
    ),
}
