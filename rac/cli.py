"""The `rac` command: flags mirror the recipe's fields one to one."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads collapse on a busy machine
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import typer
from rich.console import Console

from rac.compare_commands import compare_command, reconstruct_command
from rac.errors import UserError
from rac.flags import recipe_flags

app = typer.Typer(
    help="Prune reasoning language models on their own chains of thought.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
INTERRUPTED = 130  # a shell's exit code for Ctrl-C
UsageError = typer.BadParameter.__base__  # click's own, or that of the copy inside newer typers
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars, warnings only.")]
Out = Annotated[Path, typer.Option("--out", help="The run's directory.")]
Snapshot = Annotated[
    float,
    typer.Option(min=0, help="Least seconds between snapshots that a killed run continues from."),
]


def _set_up(quiet: bool) -> None:
    """Logging, and no bars of other libraries."""
    import transformers

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("rac").setLevel(logging.WARNING if quiet else logging.INFO)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


@app.command("prune")
@recipe_flags
def prune_command(
    values: dict[str, Any], out: Out, quiet: Quiet = False, snapshot_seconds: Snapshot = 60.0
) -> None:
    """Prune a model: traces, Hessians, sparse weights, checkpoint in OUT/model.

    The same command continues an interrupted run and gives bit-identical weights.
    """
    from rac.recipe import make_recipe
    from rac.run import prune

    recipe = make_recipe(values)
    _set_up(quiet)
    _say(f"checkpoint: {prune(recipe, out, quiet=quiet, snapshot_seconds=snapshot_seconds)}")


@app.command("trace")
@recipe_flags
def trace_command(
    values: dict[str, Any], out: Out, quiet: Quiet = False, snapshot_seconds: Snapshot = 60.0
) -> None:
    """Write the model's own traces, --tokens of them, to OUT/traces.parquet."""
    from rac.recipe import make_recipe
    from rac.run import trace

    recipe = make_recipe(values)
    _set_up(quiet)
    _say(f"traces: {trace(recipe, out, quiet=quiet, snapshot_seconds=snapshot_seconds)}")


@app.command("pack")
def pack_command(
    checkpoint: Annotated[str, typer.Argument(help="Folder of a pruned model, or a hub name.")],
    out: Annotated[Path, typer.Option(help="Folder of the packed model; must not exist.")],
    format: Annotated[
        str,
        typer.Option(
            help="auto: 2:4 where it fits, else bitmap where it gains; or one of them; or "
            "fp8-dense, compressed-tensors' format."
        ),
    ] = "auto",
    fp8: Annotated[bool, typer.Option("--fp8", help="2:4 values in fp8, scaled by row.")] = False,
    quiet: Quiet = False,
) -> None:
    """Pack a pruned checkpoint: smaller, and loads with from_pretrained once rac is imported."""
    _set_up(quiet)
    from rac.packed.pack import pack

    summary = pack(checkpoint, out, format=format, fp8=fp8, quiet=quiet)
    for line in summary.lines():
        _say(line)
    _say(f"checkpoint: {out}")


@app.command("eval")
def eval_command(
    model: Annotated[str, typer.Option(help="Model folder, hub name, or 'embedded'.")],
    task: Annotated[str, typer.Option(help="embedded, or jsonl with --data.")] = "embedded",
    data: Annotated[
        Path | None, typer.Option(help="JSONL file: prompt or messages, and answer, a line each.")
    ] = None,
    grader: Annotated[str, typer.Option(help="exact or math, for jsonl.")] = "exact",
    out: Annotated[
        Path | None, typer.Option(help="Results go to OUT/eval. [default: the model's run]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First problems only.")] = None,
    max_new_tokens: Annotated[str, typer.Option(help="Longest answer, e.g. 32k.")] = "32768",
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Nucleus sampling mass.")] = 0.95,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences decoded at once.")] = 64,
    raw_prompts: Annotated[bool, typer.Option("--raw-prompts", help="No chat template.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard old results.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure accuracy, minutes and output tokens of a model on problems with known answers."""
    _set_up(quiet)
    from rac.evaluation import evaluate, load_task
    from rac.models import load_model, load_tokenizer, resolve_model
    from rac.packed.registration import is_packed
    from rac.progress import Stages
    from rac.recipe import parse_flag_count

    tokens = parse_flag_count("max-new-tokens", max_new_tokens)
    problems = load_task(task, data, grader=grader, limit=limit)
    folder = resolve_model(model)
    if out is None:
        in_run = (folder / "rac.json").is_file() and not is_packed(folder)
        out = folder.parent if in_run else Path(f"eval-{folder.name}")
    loaded = load_model(folder, device, dtype)
    with Stages(quiet).stage(f"evaluate {task}", len(problems.questions), "problems") as advance:
        result = evaluate(
            loaded,
            load_tokenizer(folder),
            problems,
            out_dir=out,
            max_new_tokens=tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            batch_size=batch_size,
            raw_prompts=raw_prompts,
            overwrite=overwrite,
            progress=advance,
        )
    _say(f"accuracy       {result.accuracy:.4f} ± {result.stderr:.4f} ({result.n} problems)")
    _say(f"minutes        {result.minutes:.2f} ({result.tokens_per_second:,.0f} tokens/s)")
    _say(
        f"output tokens  mean {result.output_tokens:.0f}, median "
        f"{result.output_tokens_median:.0f}; {result.limit_share:.1%} hit the limit"
    )
    _say(f"written to     {out / 'eval'}")


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories with evaluations.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    device: Annotated[str, typer.Option(help="Where Figure 2 is computed.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Write one self-contained page, results.json and the figures from RUNS."""
    _set_up(quiet)
    from rac.demo import print_rows
    from rac.report import write_report

    rows = write_report(runs, out, device=device)
    print_rows(rows, Console())
    _say(f"report: {out / 'report.html'}")


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path("demo"),
    tokens: Annotated[str, typer.Option(help="Calibration tokens.")] = "40k",
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems.")] = 200,
    quiet: Quiet = False,
) -> None:
    """Prune the embedded reasoner four ways by three calibrations, and report. A few minutes."""
    _set_up(quiet)
    from rac.demo import demo, print_rows
    from rac.recipe import parse_flag_count

    rows = demo(out, tokens=parse_flag_count("tokens", tokens), problems=problems, quiet=quiet)
    print_rows(rows, Console())
    _say(f"report: {(out / 'report' / 'report.html').resolve()}")


@app.command("info")
def info_command() -> None:
    """Print versions, devices and which kernels are usable here."""
    from rac.info import describe

    _set_up(quiet=True)
    rows = describe()
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        _say(f"{name:<{width}}{value}")


app.command("compare")(compare_command)
app.command("reconstruct")(reconstruct_command)


def main() -> None:
    """Run the command line; exit code 2 and one line for a user's mistake."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
    except UserError as error:
        print(f"rac: {error}", file=sys.stderr)
        sys.exit(2)
    except UsageError as error:
        print(f"rac: {error.format_message().rstrip('.')}; see --help", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED  # newer typers return it themselves
    if code == INTERRUPTED:
        print("rac: interrupted; the same command continues", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)
