"""`evaluate` against one-by-one `model.generate`: same model, prompts, greedy tokens, machine.

    python -m benchmarks.bench_eval [--model embedded] [--problems 40] [--batch-size 64]
                                    [--threads N] [--out benchmarks/results]

One by one: transformers' own model and `generate` with its KV cache, a prompt at a time, decoded
and graded. `evaluate`: our engine with continuous batching, everything that `rac eval` does after
the model is loaded: rendering, the fingerprint, grading beside generation, responses on disk, the
summary. Seconds are wall time of the whole, the tokens are those of the responses. Before a ratio
is reported every response has to be the same text; where another model's greedy choice is a tie
that float32 sums in another order decide, that is refused.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

from benchmarks.common import bench_options, report, time_once
from rac.engines.local import TransformersEngine
from rac.engines.text import decode, knows_thinking
from rac.evaluation import Conditions, EvalResult, Question, Task, evaluate, load_task
from rac.evaluation.graders import make_grader
from rac.evaluation.grading import judge
from rac.evaluation.responses import read_responses
from rac.models import load_model, load_tokenizer, pick_device, resolve_model
from rac.prompts import render

MOST_TOKENS = 256


@torch.inference_mode()
def one_by_one(model, tokenizer, task: Task) -> tuple[list[str], list[bool]]:
    """Text of every response and whether it is right."""
    texts, correct = [], []
    thinks = knows_thinking(tokenizer)
    with make_grader(task.grader) as grader:
        for question in task.questions:
            ids = torch.tensor([render(tokenizer, question.prompt)], device=model.device)
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=MOST_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
            )[0, ids.shape[1] :]
            texts.append(decode(tokenizer, output.tolist()))
            correct.append(judge(grader, question, texts[-1], thinks, "stop")[0].correct)
    return texts, correct


def ours(engine: TransformersEngine, task: Task, folder: Path) -> tuple[list[str], EvalResult]:
    """The same through `evaluate`."""
    conditions = Conditions(max_new_tokens=MOST_TOKENS, temperature=0.0)
    result = evaluate(engine, task, conditions, out_dir=folder, overwrite=True)
    responses = read_responses(folder / "eval" / f"{task.name}.jsonl")[1]
    return [r.text for r in sorted(responses, key=lambda r: r.index)], result


def warm_up(model, engine: TransformersEngine, folder: Path) -> None:
    """A response of each, so that no first call is counted."""
    task = Task("warm-up", (Question("One packs 12 boxes with 34 pens.", "1"),))
    one_by_one(model, engine.tokenizer, task)
    ours(engine, task, folder)


def main() -> None:
    parser = bench_options(__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    problems = 8 if options.quick else options.problems
    folder, device = resolve_model(options.model), pick_device(options.device)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    tokenizer = load_tokenizer(options.model)
    loaded = load_model(options.model, options.device, "float32")
    engine = TransformersEngine(loaded, tokenizer, batch_size=options.batch_size)
    task = load_task("embedded", limit=problems)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        warm_up(plain, engine, out)
        texts, result = ours(engine, task, out)
        start = time.perf_counter()
        expected, correct = one_by_one(plain, tokenizer, task)
        slow = time.perf_counter() - start
        times = [time_once(lambda: ours(engine, task, out), str(device)) for _ in range(3)]
    same = sum(a == b for a, b in zip(texts, expected, strict=True))
    if same < problems or result.accuracy != sum(correct) / problems:
        raise SystemExit(f"only {same} of {problems} responses are the same: nothing to compare")
    fast, tokens = statistics.median(times), result.output_tokens * problems
    row = {"op": "eval", "device": str(device), "model": options.model, "problems": problems}
    row |= {"batch_size": options.batch_size, "tokens": tokens, "accuracy": result.accuracy}
    row |= {"one_by_one_s": slow, "evaluate_s": fast, "same_responses": same}
    row |= {"one_by_one_tokens_per_s": tokens / slow, "evaluate_tokens_per_s": tokens / fast}
    report(row | {"speedup": slow / fast}, options.out, "eval")


if __name__ == "__main__":
    main()
