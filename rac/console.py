"""What all commands share: logging, printing, --quiet."""

import logging
import sys
from typing import Annotated

import typer
from rich.console import Console

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars, warnings only.")]


def set_up(quiet: bool) -> None:
    """Logging, and no bars of other libraries."""
    import transformers

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("rac").setLevel(logging.WARNING if quiet else logging.INFO)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def say(text: str) -> None:
    """Print one line to stdout as it is."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
