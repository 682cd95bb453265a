"""The `rac` command: flags mirror the recipe's fields one to one."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads collapse on a busy machine
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import click
import typer
from rich.console import Console

from rac.errors import UserError
from rac.flags import recipe_flags

app = typer.Typer(
    help="Prune reasoning language models on their own chains of thought.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
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


@app.command("info")
def info_command() -> None:
    """Print versions, devices and which kernels are usable here."""
    from rac.info import describe

    _set_up(quiet=True)
    for name, value in describe().items():
        _say(f"{name:<14}{value}")


def main() -> None:
    """Run the command line; exit code 2 and one line for a user's mistake."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        print(f"rac: {error}", file=sys.stderr)
        sys.exit(2)
    except click.ClickException as error:
        print(f"rac: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print("rac: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
