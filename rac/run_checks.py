"""What a run refuses before long work: its directory, its inputs, linears that it cannot prune."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rac.calibration import Group, find_groups
from rac.calibration.stage import load_prompt_ids, read_trace_file
from rac.engines.inputs import context_length
from rac.errors import UserError
from rac.models import load_tokenizer
from rac.pruning.scope import select_linears
from rac.recipe import Recipe, make_recipe, read_recipe
from rac.traces import vocabulary_hash
from rac_kernels import Pattern


def check_directory(recipe: Recipe, out: Path, model_folder: Path) -> None:
    """Refuse a directory that holds another run.

    Raises:
        UserError: it holds a run of another recipe, or a model that no run has made.
    """
    path = out / "recipe.yaml"
    if not path.exists():
        if model_folder.exists():
            raise UserError(
                f"{model_folder} exists and is not the result of a run; choose another --out"
            )
        return
    before = make_recipe(read_recipe(path)).model_dump()
    for name, value in recipe.model_dump().items():
        if before[name] != value:
            raise UserError(
                f"{out} holds a run with {name}={before[name]}, not {value}; "
                "choose another --out, or delete it to start anew"
            )


def check_inputs(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Read the calibration's inputs once; the token ids of its prompts, none where it has others.

    Raises:
        UserError: they cannot be read, or mean something else to this model.
    """
    if recipe.hessians:
        return []
    if recipe.calibration == "off-policy" and recipe.traces:
        read_trace_file(recipe, tokenizer)
        return []
    if recipe.calibration == "off-policy":
        other = load_tokenizer(recipe.trace_model)
        if vocabulary_hash(other) != vocabulary_hash(tokenizer):
            raise UserError(
                f"--trace-model {recipe.trace_model} has another vocabulary than "
                f"{recipe.model}: its token ids mean something else"
            )
    return load_prompt_ids(recipe, tokenizer, context_length(model))


def chosen_groups(recipe: Recipe, model: PreTrainedModel) -> list[Group]:
    """The groups of the linears that the recipe selects.

    Raises:
        UserError: the model's forward pass does not reach one of them.
    """
    names = select_linears(model, recipe.scope, recipe.include, recipe.exclude)
    groups = find_groups(model, set(names))
    reached = {name for group in groups for name in group.linears}
    missed = [name for name in names if name not in reached]
    if missed:
        raise UserError(
            f"{missed[0]} ({len(missed)} in all) is not reached by the model's forward pass, "
            "so what it reads is unknown; leave such linears out with --exclude"
        )
    return groups


def check_pattern(pattern: Pattern, groups: list[Group], block_size: int) -> None:
    """Refuse sizes that do not divide into the pattern's.

    Raises:
        UserError: in_features of a group, or the block size, are no multiple of m.
    """
    for group in groups:
        for size, what in ((group.in_features, "in_features"), (block_size, "")):
            if pattern.m and size % pattern.m:
                which = f"{what} {size} of {group.name}" if what else f"--block-size {size}"
                raise UserError(f"--pattern {pattern}: {which} is not a multiple of {pattern.m}")
