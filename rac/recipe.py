"""What a run is: one validated object, YAML on disk, every default visible."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from rac.errors import UserError
from rac.files import write_atomic
from rac_kernels import Pattern

SUFFIXES = {"k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


def parse_count(value: Any) -> Any:
    """Turn "40k", "1M", "1.5M" or "1000" into an int; other types pass through."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", value.strip().lower())
    if not match:
        raise ValueError(f"expected a number with an optional suffix k, M or G, got {value!r}")
    return int(float(match[1]) * SUFFIXES.get(match[2], 1))


def parse_flag_count(flag: str, value: str) -> int:
    """`parse_count` of a flag that is no recipe field.

    Raises:
        UserError: it is not a positive count.
    """
    try:
        count = parse_count(value)
    except ValueError as error:
        raise UserError(f"--{flag} {value}: {error}") from error
    if count < 1:
        raise UserError(f"--{flag} {value}: expected at least 1")
    return count


Count = Annotated[int, BeforeValidator(parse_count)]


class Recipe(BaseModel):
    """A pruning run. Each field is a flag of `rac prune` and a line of `recipe.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("embedded", description="Model folder, hub name, or 'embedded'.")
    prompts: str = Field(
        "embedded",
        description="Problems (or text, with --calibration text): .jsonl/.parquet file, data set "
        "name[:config][@split], or 'embedded'.",
    )
    prompt_column: str | None = Field(None, description="Column that holds the prompt.")
    raw_prompts: bool = Field(False, description="Use prompts as they are, no chat template.")
    calibration: Literal["text", "prompt", "rac", "off-policy"] = Field(
        "rac", description="Which tokens calibrate: rac = prompts and the model's own traces."
    )
    traces: str | None = Field(None, description="Trace file for --calibration off-policy.")
    trace_model: str | None = Field(None, description="Model that writes the off-policy traces.")
    tokens: Count = Field(1_000_000, gt=0, description="Calibration tokens, e.g. 40k or 1M.")
    max_new_tokens: Count = Field(8192, gt=0, description="Longest decode of one trace.")
    temperature: float = Field(0.6, ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(0.95, gt=0, le=1, description="Nucleus sampling mass.")
    batch_size: int = Field(64, gt=0, description="Sequences decoded at once.")
    pattern: str = Field("0.5", description="Sparsity (0.5), or n:m (2:4: n of every m pruned).")
    solver: Literal["sparsegpt", "alps", "wanda", "magnitude"] = Field(
        "sparsegpt",
        description="How weights are chosen and updated: alps leaves less error than sparsegpt and "
        "takes tens of times as long; wanda and magnitude update nothing.",
    )
    scope: str = Field(
        "all",
        description="all, mlp, attention, first, middle, last, first-last; combine with commas.",
    )
    include: str | None = Field(None, description="Prune only linears whose name matches (regex).")
    exclude: str | None = Field(None, description="Leave linears whose name matches (regex).")
    damping: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="Share of the Hessian's mean diagonal added, by sparsegpt and alps.",
    )
    block_size: int = Field(128, gt=0, description="Columns solved at once, by sparsegpt.")
    collector: Literal["auto", "decode", "replay"] = Field(
        "auto", description="decode: Hessians grow in one pass; replay: one layer at a time."
    )
    propagate: Literal["dense", "pruned"] = Field(
        "dense", description="Activations of the dense model, or of the layers pruned so far."
    )
    hessians: str | None = Field(
        None, description="Run whose kept Hessians to reuse instead of calibrating."
    )
    keep_hessians: bool = Field(False, description="Keep the Hessians for other runs.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Compute dtype; auto = float32 on a CPU, the model's own on a GPU."
    )
    seed: int = Field(0, ge=0, description="The one seed of all randomness.")

    @field_validator("pattern", mode="before")
    @classmethod
    def _pattern(cls, value: Any) -> str:
        return str(Pattern.parse(str(value)))

    @field_validator("include", "exclude")
    @classmethod
    def _regex(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    def check(self) -> None:
        """Refuse combinations that make no sense.

        Raises:
            UserError: names the flags and the remedy.
        """
        if self.calibration == "off-policy" and bool(self.traces) == bool(self.trace_model):
            raise UserError(
                "--calibration off-policy needs either --traces FILE or --trace-model NAME"
            )
        if self.calibration != "off-policy" and (self.traces or self.trace_model):
            raise UserError("--traces and --trace-model go with --calibration off-policy only")
        if self.propagate == "pruned" and self.collector == "decode":
            raise UserError("--propagate pruned works layer by layer: use --collector replay")
        if self.hessians and (self.propagate == "pruned" or self.collector == "replay"):
            raise UserError("--hessians needs --propagate dense and no --collector replay")
        if self.keep_hessians and (self.propagate == "pruned" or self.collector == "replay"):
            raise UserError("--keep-hessians needs --propagate dense and no --collector replay")


CALIBRATION_FIELDS = (
    *("model", "prompts", "prompt_column", "raw_prompts", "calibration", "traces", "trace_model"),
    *("tokens", "max_new_tokens", "temperature", "top_p", "batch_size", "dtype", "seed"),
)


def make_recipe(values: dict[str, Any]) -> Recipe:
    """Validate `values`.

    Raises:
        UserError: one line with the first bad field and what is wrong with it.
    """
    try:
        recipe = Recipe(**values)
    except ValidationError as error:
        first = error.errors()[0]
        flag = str(first["loc"][0]) if first["loc"] else "recipe"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise UserError(f"recipe: there is no field {flag!r}; see rac prune --help") from error
        value = first.get("input")
        raise UserError(f"--{flag.replace('_', '-')} {value}: {message}") from error
    recipe.check()
    return recipe


class _Loader(yaml.SafeLoader):
    """Leaves numbers as text: YAML 1.1 reads an unquoted 2:4 as the base-60 number 124."""

    yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":int", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_recipe(path: Path) -> dict[str, Any]:
    """Read the fields of a recipe file.

    Raises:
        UserError: it is missing or not a YAML mapping.
    """
    try:
        values = yaml.load(path.read_text(), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"cannot read the recipe {path}: {reason}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe: expected lines of 'field: value'")
    return values


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write every field, defaults too."""
    with write_atomic(path) as temporary:
        temporary.write_text(yaml.safe_dump(recipe.model_dump(), sort_keys=False))
