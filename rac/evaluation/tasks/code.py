"""HumanEval and LiveCodeBench.

HumanEval (Chen et al. 2021, arXiv 2107.03374) is published for completion; a chat model is asked
here in our words for the whole function. LiveCodeBench (Jain et al. 2024, arXiv 2403.07974) is
asked in the words of lighteval's task `lcb:codegeneration`, whose metric `codegen_pass@1:16` the
paper reports: 16 samples at T=0.6, top-p 0.95, 32768 tokens, no system prompt.
"""

import json

from rac.errors import UserError
from rac.evaluation.code_tests import read_tests
from rac.evaluation.tasks.base import Question, Settings
from rac.evaluation.tasks.benchmark import Benchmark
from rac.rows import Row

HUMANEVAL = (
    "Complete this Python function. Answer with the whole function, and the imports it needs, in "
    "one Python code block.\n\n```python\n{prompt}\n```"
)
LIVECODEBENCH = (
    "You will be given a question (problem specification) and will generate a correct Python "
    "program that matches the specification and passes all tests.\n\nQuestion: {question}\n\n"
)
WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose "
    "your code within delimiters.\n```python\n{starter}\n```\n\n"
)
WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly "
    "test on the sample inputs). Enclose your code within delimiters as follows. Ensure that when "
    "the python program runs, it reads the inputs, runs the algorithm and writes output to "
    "STDOUT.\n```python\n# YOUR CODE HERE\n```\n\n"
)


def _humaneval(row: Row) -> Question:
    prompt, name = row.text("prompt"), row.text("entry_point")
    reference = {"function": name, "check": row.text("test"), "prompt": prompt}
    asked = HUMANEVAL.format(prompt=prompt.strip())
    return Question(asked, row.text("canonical_solution"), reference)


def _livecodebench(row: Row) -> Question:
    starter = row.get("starter_code") or ""
    prompt = LIVECODEBENCH.format(question=row.text("question_content"))
    prompt += WITH_STARTER.format(starter=starter) if starter else WITHOUT_STARTER
    reference = {
        "function": _function_name(row),
        "public": row.text("public_test_cases"),
        "private": row.text("private_test_cases"),
    }
    try:
        read_tests(reference)
    except UserError as error:
        raise UserError(f"{row.where}: {error}") from error
    return Question(prompt, "", reference)


def _function_name(row: Row) -> str | None:
    """The function to call, from the JSON in `metadata`; None for a program with stdin."""
    try:
        metadata = json.loads(row.get("metadata") or "{}")
        name = metadata.get("func_name")
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{row.where}: 'metadata' is not a JSON object") from error
    return str(name) if name else None


CODE = {
    "humaneval": Benchmark(
        hub="openai/openai_humaneval",
        split="test",
        files=("HumanEval.jsonl.gz", "HumanEval.jsonl", "test*.parquet", "*human*eval*"),
        columns="prompt, canonical_solution, test and entry_point",
        question=_humaneval,
        grader="code",
    ),
    "livecodebench": Benchmark(
        hub="lighteval/code_generation_lite",
        config="v4_v5",
        split="test",
        parts=True,  # a release is test.jsonl, test2.jsonl, ... up to its number
        files=("test*.jsonl", "*livecodebench*", "*code_generation*"),
        columns="question_content, starter_code, public_test_cases, private_test_cases, metadata",
        question=_livecodebench,
        grader="code",
        settings=Settings(samples=16),
    ),
}
