"""Flags from the recipe: each field of `Recipe` becomes an option of the same name."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from rac.recipe import Recipe, read_recipe


def _option(name: str) -> inspect.Parameter:
    """The keyword parameter of one recipe field; None means "not given"."""
    field = Recipe.model_fields[name]
    kind = bool | None if field.annotation is bool else str | None
    default = "" if field.default is None else f" [default: {field.default}]"
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    option = typer.Option(flag, help=f"{field.description}{default}", show_default=False)
    annotation = Annotated[kind, option]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def recipe_flags(command: Callable) -> Callable:
    """Give `command(values, ...)` a flag for each recipe field, and `--recipe FILE`.

    `values` holds the fields of the file, overridden by the flags that were given.
    """
    own = [p for name, p in inspect.signature(command).parameters.items() if name != "values"]
    option = typer.Option("--recipe", help="Recipe file (YAML); flags override it.")
    file = inspect.Parameter(
        "recipe",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Path | None, option],
    )

    @wraps(command)
    def wrapper(**kwargs: Any) -> Any:
        path = kwargs.pop("recipe")
        given = {name: kwargs.pop(name) for name in Recipe.model_fields}
        values = read_recipe(path) if path else {}
        values |= {name: value for name, value in given.items() if value is not None}
        return command(values, **kwargs)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    parameters += [_option(name) for name in Recipe.model_fields] + [file]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper
