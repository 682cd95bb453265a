"""Ask a model every question of a task, grade the responses, write both down."""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rac.engines import Sampling, Trace, generate
from rac.engines.inputs import context_length
from rac.errors import UserError
from rac.evaluation.answers import decode, final_text, knows_thinking
from rac.evaluation.graders import Grade, Grader, make_grader
from rac.evaluation.metrics import EvalResult, summarize
from rac.evaluation.responses import Response, ResponseLog
from rac.evaluation.tasks import Question, Task, load_task
from rac.files import locked, read_json, write_json
from rac.models import EMBEDDED
from rac.packed.linears import PackedLinear
from rac.prompts import render

logger = logging.getLogger(__name__)

SAMPLED_ELEMENTS = 4096


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str | Task,
    *,
    out_dir: Path,
    limit: int | None = None,
    max_new_tokens: int,
    temperature: float = 0.6,
    top_p: float = 0.95,
    seed: int = 0,
    batch_size: int = 64,
    raw_prompts: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> EvalResult:
    """Measure accuracy, minutes and output tokens of `model` on `task`.

    Responses go to `out_dir/eval/<task>.jsonl` as they finish, the summary to `<task>.json`. The
    same call continues after an interruption and generates only what is missing. `limit` keeps the
    first questions. `progress` is given the number of responses finished since its last call.

    Raises:
        UserError: a bad task, no chat template, a prompt longer than the context, or an earlier
            evaluation there with other settings; nothing has been generated or overwritten then.
    """
    task = load_task(task, limit=limit) if isinstance(task, str) else _first(task, limit)
    prompts = [render(tokenizer, q.prompt, raw_prompts) for q in task.questions]
    _require_fit(prompts, context_length(model))
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    checkpoint = describe_checkpoint(model)
    settings = _settings(model, task, prompts, raw_prompts, sampling)
    path = Path(out_dir) / "eval" / f"{task.name}.jsonl"
    with (
        locked(path.parent),
        make_grader(task.grader) as grader,
        ResponseLog(path, settings, overwrite) as log,
    ):
        grading = _Grading(tokenizer, grader, task)
        seconds = _finish(model, prompts, sampling, batch_size, log, grading, progress)
        numbers = summarize(list(log.responses.values()), seconds, grading.thinks)
        result = EvalResult(
            task=task.name,
            **checkpoint,
            **numbers._asdict(),
            batch_size=batch_size,
            device=model.device.type,
            settings=settings,
        )
        write_json(path.with_suffix(".json"), asdict(result))
    if result.unfinished_share == 1:
        logger.warning("%s: not one response has </think>; all count as wrong", path)
    return result


def _finish(
    model: PreTrainedModel,
    prompts: list[list[int]],
    sampling: Sampling,
    batch_size: int,
    log: ResponseLog,
    grading: "_Grading",
    progress: Callable[[int], None] | None,
) -> float:
    """Generate the responses that `log` lacks; returns the wall seconds of all parts."""
    report = progress or (lambda count: None)
    report(len(log.responses))
    missing = [index for index in range(len(prompts)) if index not in log.responses]
    before, start = log.seconds, time.perf_counter()
    if not missing:
        return before
    log.path.with_suffix(".json").unlink(missing_ok=True)
    traces = generate(model, [prompts[i] for i in missing], sampling, batch_size=batch_size)
    for trace in traces:
        response = grading(missing[trace.index], trace)
        response["seconds"] = before + time.perf_counter() - start
        log.append(Response(**response))
        report(1)
    return log.seconds


class _Grading:
    """Turns a trace into the fields of a `Response`, its `seconds` left out."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        grader: Grader,
        task: Task,
    ) -> None:
        self.tokenizer, self.grader, self.task = tokenizer, grader, task
        self.thinks = knows_thinking(tokenizer)

    def __call__(self, index: int, trace: Trace) -> dict[str, Any]:
        question: Question = self.task.questions[index]
        text = decode(self.tokenizer, trace.output_ids)
        final = final_text(text, self.thinks)
        unfinished = Grade(False, None)
        grade = unfinished if final is None else self.grader.grade(final, question)
        return {
            "index": index,
            "prompt": question.prompt,
            "answer": question.answer,
            "text": text,
            "predicted": grade.predicted,
            "correct": grade.correct,
            "scores": grade.scores,
            "note": grade.note,
            "finished": final is not None,
            "finish_reason": trace.finish_reason,
            "prompt_tokens": len(trace.prompt_ids),
            "output_tokens": len(trace.output_ids),
        }


def _first(task: Task, limit: int | None) -> Task:
    if limit is not None and limit < 1:
        raise UserError(f"the number of problems must be at least 1, got {limit}")
    return replace(task, questions=task.questions[:limit])


def _require_fit(prompts: list[list[int]], context: int) -> None:
    for index, prompt in enumerate(prompts):
        if len(prompt) >= context:
            raise UserError(
                f"problem {index + 1} has {len(prompt)} tokens and the model's context {context}; "
                "leave it out or shorten it"
            )


def _settings(
    model: PreTrainedModel, task: Task, prompts: list[list[int]], raw: bool, sampling: Sampling
) -> dict[str, Any]:
    """What must be equal for an evaluation to continue: model, prompts, task and sampling."""
    return {
        "task": task.name,
        "problems": task.digest,
        "n": len(task.questions),
        "grader": task.grader,
        **asdict(sampling),
        "raw_prompts": raw,
        "prompts": hashlib.sha256(repr(prompts).encode()).hexdigest()[:16],
        "weights": fingerprint(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
    }


def fingerprint(model: PreTrainedModel) -> str:
    """A hash of up to 4096 evenly spaced elements of each weight, in float32.

    Two prunings of one model differ in it, two loads of one checkpoint do not.
    """
    digest = hashlib.sha256()
    packed = [(n, m) for n, m in model.named_modules() if isinstance(m, PackedLinear)]
    buffers = {f"{n}.{part}": b for n, module in packed for part, b in module.named_buffers()}
    for name, tensor in {**dict(model.named_parameters()), **buffers}.items():
        step = max(1, tensor.numel() // SAMPLED_ELEMENTS)
        sample = tensor.detach().reshape(-1)[::step].to("cpu", torch.float32).contiguous()
        digest.update(name.encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def describe_checkpoint(model: PreTrainedModel) -> dict[str, Any]:
    """Pattern, calibration, solver and source from the rac.json beside the model's weights.

    A model without one is dense and its own source.
    """
    name = str(model.name_or_path)
    path = Path(name) / "rac.json"
    if not name or not path.is_file():
        name = "embedded" if Path(name) == EMBEDDED else name
        return {
            "pattern": "dense",
            "calibration": "dense",
            "solver": None,
            "model": name,
            "source_model": name,
            "sparsity": 0.0,
        }
    written = read_json(path)
    keys = ("pattern", "calibration", "solver", "source_model", "sparsity")
    missing = [key for key in keys if key not in written]
    if missing:
        raise UserError(f"{path}: the key {missing[0]!r} is missing; prune the model again")
    return {**{key: written[key] for key in keys}, "model": name}
