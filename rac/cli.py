"""The `rac` command: flags mirror the recipe's fields one to one."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads collapse on a busy machine
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import typer
from rich.console import Console

from rac.compare_commands import compare_command, reconstruct_command
from rac.console import Quiet, say, set_up
from rac.errors import UserError
from rac.eval_command import eval_command
from rac.flags import recipe_flags

app = typer.Typer(
    help="Prune reasoning language models on their own chains of thought.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
INTERRUPTED = 130  # a shell's exit code for Ctrl-C
UsageError = typer.BadParameter.__base__  # click's own, or that of the copy inside newer typers
Out = Annotated[Path, typer.Option("--out", help="The run's directory.")]
Snapshot = Annotated[
    float,
    typer.Option(min=0, help="Least seconds between snapshots that a killed run continues from."),
]


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
    set_up(quiet)
    say(f"checkpoint: {prune(recipe, out, quiet=quiet, snapshot_seconds=snapshot_seconds)}")


@app.command("trace")
@recipe_flags
def trace_command(
    values: dict[str, Any], out: Out, quiet: Quiet = False, snapshot_seconds: Snapshot = 60.0
) -> None:
    """Write the model's own traces, --tokens of them, to OUT/traces.parquet."""
    from rac.recipe import make_recipe
    from rac.run import trace

    recipe = make_recipe(values)
    set_up(quiet)
    say(f"traces: {trace(recipe, out, quiet=quiet, snapshot_seconds=snapshot_seconds)}")


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
    set_up(quiet)
    from rac.packed.pack import pack

    summary = pack(checkpoint, out, format=format, fp8=fp8, quiet=quiet)
    for line in summary.lines():
        say(line)
    say(f"checkpoint: {out}")


app.command("eval")(eval_command)


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories with evaluations.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    device: Annotated[str, typer.Option(help="Where Figure 2 is computed.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Write one self-contained page, results.json and the figures from RUNS."""
    set_up(quiet)
    from rac.demo import print_rows
    from rac.report import write_report

    rows = write_report(runs, out, device=device)
    print_rows(rows, Console())
    say(f"report: {out / 'report.html'}")


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path("demo"),
    tokens: Annotated[str, typer.Option(help="Calibration tokens.")] = "40k",
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems.")] = 200,
    quiet: Quiet = False,
) -> None:
    """Prune the embedded reasoner four ways by three calibrations, and report. A few minutes."""
    set_up(quiet)
    from rac.demo import demo, print_rows
    from rac.recipe import parse_flag_count

    rows = demo(out, tokens=parse_flag_count("tokens", tokens), problems=problems, quiet=quiet)
    print_rows(rows, Console())
    say(f"report: {(out / 'report' / 'report.html').resolve()}")


@app.command("info")
def info_command() -> None:
    """Print versions, devices and which kernels are usable here."""
    from rac.info import describe

    set_up(quiet=True)
    rows = describe()
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        say(f"{name:<{width}}{value}")


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
