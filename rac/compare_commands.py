"""`rac compare` and `rac reconstruct`: two models beside each other."""

from pathlib import Path
from typing import Annotated

import typer

from rac.console import say


def compare_command(
    run_a: Annotated[Path, typer.Argument(help="Run directory of model A.")],
    run_b: Annotated[Path, typer.Argument(help="Run directory of model B.")],
    task: Annotated[str | None, typer.Option(help="[default: the run's only task]")] = None,
    score: Annotated[str, typer.Option(help="accuracy, or a grader's own: em, f1.")] = "accuracy",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Say how sure it is that one of two models is better, on the same problems."""
    from rac.evaluation.compare import CONFIDENCE, RESAMPLES, compare
    from rac.evaluation.stored import find_evaluation, read_evaluation

    a, b = (read_evaluation(find_evaluation(run, task)) for run in (run_a, run_b))
    found = compare(a, b, score=score, seed=seed)
    say(f"problems     {found.questions} questions of task {a.path.stem}, {score}")
    say(f"A            {found.a:.4f}  {run_a}")
    say(f"B            {found.b:.4f}  {run_b}")
    say(
        f"difference   B - A = {found.difference:+.4f}, {CONFIDENCE:.0%} interval "
        f"[{found.low:+.4f}, {found.high:+.4f}] (paired bootstrap over questions, "
        f"{RESAMPLES:,} resamples)"
    )
    say(
        f"exact test   A ahead on {found.only_a} questions, B on {found.only_b}: "
        f"p = {found.p_value:.3g} (McNemar, two-sided)"
    )
    say(f"B is better  in {found.b_better:.1%} of the resamples, ties counted half")
    for note in found.notes:
        say(f"note         {note}")


def reconstruct_command(
    dense: Annotated[str, typer.Option(help="The dense model: folder, hub name or 'embedded'.")],
    a: Annotated[str, typer.Option(help="Checkpoint A.")],
    b: Annotated[str, typer.Option(help="Checkpoint B; r > 1 where it is closer.")],
    out: Annotated[Path, typer.Option(help="Folder of the heatmap and the numbers.")],
    task: Annotated[str, typer.Option(help="Whose problems, as in rac eval.")] = "embedded",
    data: Annotated[Path | None, typer.Option(help="The task's file.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="First problems only.")] = 24,
    max_new_tokens: Annotated[str, typer.Option(help="Longest rollout, e.g. 8k.")] = "2048",
    raw_prompts: Annotated[bool, typer.Option("--raw-prompts", help="No chat template.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16")] = "auto",
) -> None:
    """Follow the dense model's rollouts: which of two checkpoints stays closer, token by token."""
    from rac.evaluation import load_task
    from rac.recipe import parse_flag_count
    from rac.report.reconstruct import reconstruct

    tokens = parse_flag_count("max-new-tokens", max_new_tokens)
    questions = load_task(task, data, limit=limit).questions
    found = reconstruct(
        *(dense, a, b, questions, out),
        max_new_tokens=tokens,
        raw_prompts=raw_prompts,
        device=device,
        dtype=dtype,
    )
    say(f"e(a) / e(b), geometric mean over {found['problems']} problems; above 1, b is closer")
    for phase, ratio in found["ratio"].items():
        say(f"  {phase:<8} {'no tokens' if ratio is None else f'{ratio:.3f}'}")
    say(f"a = {found['a']}, b = {found['b']}; heatmap: {out / 'heatmap.png'}")
