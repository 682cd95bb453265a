"""`rac eval`: flags, checks that need no model, and the printed numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rac.console import Quiet, say, set_up

if TYPE_CHECKING:
    from rac.evaluation import EvalResult


def eval_command(
    model: Annotated[
        str, typer.Option(help="Model folder, hub name, 'embedded', or its name on the server.")
    ],
    task: Annotated[
        str,
        typer.Option(
            help="embedded, math500, aime24, gsm8k, humaneval, livecodebench, folio, bbh-temporal, "
            "musique, or jsonl: your own --data."
        ),
    ] = "embedded",
    data: Annotated[
        Path | None,
        typer.Option(
            help="The task's file, or a folder with it. jsonl: prompt or messages, and answer, in "
            "each row. [default: from the hub]"
        ),
    ] = None,
    grader: Annotated[
        str | None,
        typer.Option(
            help="exact, math, integer, choice, f1, code, or your function as FILE.py:NAME or "
            "module:NAME. [default: the task's; exact for jsonl]"
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="transformers, vllm, or openai.")] = "transformers",
    base_url: Annotated[
        str | None, typer.Option(help="openai: the server, e.g. http://localhost:8000/v1.")
    ] = None,
    describe: Annotated[
        str | None,
        typer.Option(help="openai: folder or run of the served model, or a dense model's name."),
    ] = None,
    engine_args: Annotated[
        list[str] | None,
        typer.Option(help="key=value, repeated: vLLM's own arguments, or fields of each request."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Results go to OUT/eval. [default: the model's run]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First problems only.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="Responses to each problem. [default: the task's]")
    ] = None,
    pass_at: Annotated[
        str | None, typer.Option(help="The k of pass@k, e.g. 1,16. [default: powers of two]")
    ] = None,
    max_new_tokens: Annotated[
        str | None, typer.Option(help="Longest response, e.g. 32k. [default: the task's]")
    ] = None,
    budgets: Annotated[
        str | None, typer.Option(help="Judge the same responses cut there too, e.g. 8192,4096.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 is greedy. [default: the task's]")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Nucleus mass. [default: the task's]")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            "--concurrency",
            min=1,
            help="Responses in work at once. [default: transformers 64, openai 32, vllm its own]",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="openai: seconds of silence until a request is lost.")
    ] = 600.0,
    retries: Annotated[
        int, typer.Option(min=0, help="openai: how often a failed request is sent again.")
    ] = 6,
    raw_prompts: Annotated[bool, typer.Option("--raw-prompts", help="No chat template.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard old results.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure accuracy, minutes and output tokens of a model on problems with known answers."""
    set_up(quiet)
    from rac.engines.describe import described_folder
    from rac.engines.opening import check_engine, open_engine, parse_engine_args
    from rac.evaluation import Conditions, evaluate, load_task
    from rac.evaluation.runner import check_responses
    from rac.models import resolve_model
    from rac.progress import Stages
    from rac.recipe import parse_flag_count

    args = parse_engine_args(engine_args or [])
    check_engine(engine, base_url, describe, args)
    problems = load_task(task, data, grader=grader, limit=limit, seed=seed)
    conditions = Conditions(
        max_new_tokens=max_new_tokens and parse_flag_count("max-new-tokens", max_new_tokens),
        temperature=temperature,
        top_p=top_p,
        samples=samples,
        seed=seed,
        budgets=_counts("budgets", budgets),
        pass_at=_counts("pass-at", pass_at),
    ).settled(problems)
    folder = described_folder(describe) if engine == "openai" else resolve_model(model)
    out = out or _default_out(folder, model)
    if not overwrite:
        check_responses(out, problems.name)
    answering = open_engine(
        engine,
        model,
        batch_size=batch_size,
        raw_prompts=raw_prompts,
        device=device,
        dtype=dtype,
        args=args,
        base_url=base_url,
        describe=describe,
        timeout_s=timeout,
        retries=retries,
    )
    total = len(problems.questions) * conditions.samples
    with Stages(quiet).stage(f"evaluate {task}", total, "responses") as advance:
        result = evaluate(
            answering, problems, conditions, out_dir=out, overwrite=overwrite, progress=advance
        )
    for line in lines(result):
        say(line)
    say(f"written to     {out / 'eval'}")


def lines(result: "EvalResult") -> Iterator[str]:
    """The numbers of a result, for a terminal."""
    asked = f"{result.n} problems" + (f", {result.samples} samples" * (result.samples > 1))
    yield f"accuracy       {result.accuracy:.4f} ± {result.stderr:.4f} ({asked})"
    if len(result.pass_at) > 1:
        estimates = (f"pass@{k} {value:.4f}" for k, value in result.pass_at.items())
        yield f"               {', '.join(estimates)}"
    if result.scores:
        scores = (f"{name} {value:.4f}" for name, value in result.scores.items())
        yield f"scores         {', '.join(scores)}"
    yield f"minutes        {result.minutes:.2f} ({result.tokens_per_second:,.0f} tokens/s)"
    ends = f"{result.limit_share:.1%} hit the limit"
    if result.unfinished_share is not None:
        ends += f", {result.unfinished_share:.1%} without </think>"
    if result.repeating_share:
        ends += f", {result.repeating_share:.1%} end in a loop"
    yield (
        f"output tokens  mean {result.output_tokens:.0f}, median "
        f"{result.output_tokens_median:.0f}, p95 {result.output_tokens_p95:.0f}; {ends}"
    )
    for budget, cut in result.budgets.items():
        yield (
            f"at {budget:<11,} accuracy {cut.accuracy:.4f} ± {cut.stderr:.4f}; "
            f"tokens mean {cut.output_tokens:.0f}; {cut.limit_share:.1%} hit the limit"
        )


def _counts(flag: str, text: str | None) -> tuple[int, ...]:
    from rac.recipe import parse_flag_count

    return tuple(parse_flag_count(flag, part) for part in text.split(",")) if text else ()


def _default_out(folder: Path | None, model: str) -> Path:
    """The run that a pruned model lies in; else a folder named after the model."""
    from rac.packed.registration import is_packed

    if folder is not None and (folder / "rac.json").is_file() and not is_packed(folder):
        return folder.parent
    return Path(f"eval-{folder.name if folder else model.rstrip('/').rpartition('/')[2]}")
