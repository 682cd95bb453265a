"""The recipe: YAML and flags say the same, and nonsense is refused in one line."""

import inspect

import pytest
import yaml

from rac.errors import UserError
from rac.flags import recipe_flags
from rac.recipe import Recipe, make_recipe, parse_count, read_recipe, write_recipe


@pytest.mark.parametrize(
    "text, count",
    [("40k", 40_000), ("1M", 1_000_000), ("1.5m", 1_500_000), (" 2G ", 2 * 10**9), ("17", 17)],
)
def test_counts_with_suffixes(text, count):
    assert parse_count(text) == count
    assert make_recipe({"tokens": text, "max_new_tokens": text}).max_new_tokens == count


OTHER_VALUES = {
    "model": "m",
    "prompts": "p.jsonl",
    "prompt_column": "question",
    "raw_prompts": True,
    "calibration": "off-policy",
    "traces": "t.parquet",
    "tokens": 40_000,
    "max_new_tokens": 100,
    "temperature": 1.25,
    "top_p": 0.5,
    "batch_size": 7,
    "pattern": "2:4",
    "solver": "wanda",
    "scope": "mlp,last",
    "include": "a|b",
    "exclude": "c.*",
    "damping": 0.1,
    "block_size": 64,
    "collector": "replay",
    "propagate": "pruned",
    "device": "cpu",
    "dtype": "bfloat16",
    "seed": 3,
}


@pytest.mark.parametrize("values", [{}, OTHER_VALUES, {"hessians": "h", "keep_hessians": True}])
def test_yaml_round_trip(values, tmp_path):
    recipe = make_recipe(values)
    write_recipe(tmp_path / "recipe.yaml", recipe)
    assert make_recipe(read_recipe(tmp_path / "recipe.yaml")) == recipe
    assert set(yaml.safe_load((tmp_path / "recipe.yaml").read_text())) == set(Recipe.model_fields)


def test_hand_written_yaml_means_what_it_says(tmp_path):
    """YAML 1.1 would read 2:4 as the base-60 number 124."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "pattern: 2:4\ntokens: 40k\nraw_prompts: true\nmodel: 123\nseed: 4\ntop_p: .9\ntraces:\n"
    )
    recipe = make_recipe(read_recipe(path))
    assert (recipe.pattern, recipe.tokens, recipe.raw_prompts) == ("2:4", 40_000, True)
    assert (recipe.model, recipe.seed, recipe.top_p, recipe.traces) == ("123", 4, 0.9, None)


def flag_of(name: str, value: object) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is True else [flag, str(value)]


def parse(*arguments: str) -> dict:
    """What a command with the recipe's flags is given for `arguments`."""
    import typer

    app, seen = typer.Typer(), []

    @app.command()
    @recipe_flags
    def command(values: dict) -> None:
        seen.append(values)

    app(list(arguments), standalone_mode=False)
    return seen[0]


def test_every_field_has_a_flag():
    @recipe_flags
    def command(values: dict, out: str) -> None: ...

    names = set(inspect.signature(command).parameters)
    assert names == set(Recipe.model_fields) | {"recipe", "out"}
    assert set(OTHER_VALUES) | {"trace_model", "hessians", "keep_hessians"} == set(
        Recipe.model_fields
    )
    arguments = [a for name, value in OTHER_VALUES.items() for a in flag_of(name, value)]
    assert make_recipe(parse(*arguments)) == make_recipe(OTHER_VALUES)
    assert parse() == {}


def test_flags_override_the_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("pattern: 0.7\ntokens: 10k\nraw_prompts: true\n")
    values = parse("--recipe", str(path), "--pattern", "2:4", "--no-raw-prompts")
    recipe = make_recipe(values)
    assert (recipe.pattern, recipe.tokens, recipe.raw_prompts) == ("2:4", 10_000, False)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"tokens": 0}, "--tokens 0: "),
        ({"tokens": "many"}, "--tokens many: expected a number with an optional suffix"),
        ({"tokens": "-5"}, "--tokens -5: "),
        ({"max_new_tokens": "0"}, "--max-new-tokens 0: "),
        ({"pattern": "1.5"}, r"--pattern 1\.5: Pattern: sparsity must be in 0\.\.1, got 1\.5"),
        ({"pattern": "3:2"}, "--pattern 3:2: Pattern: "),
        ({"pattern": "2:0"}, "--pattern 2:0: "),
        ({"pattern": "half"}, "--pattern half: "),
        ({"pattern": "nan"}, "--pattern nan: "),
        ({"temperature": -1}, "--temperature -1: "),
        ({"top_p": 0}, "--top-p 0: "),
        ({"top_p": 1.1}, r"--top-p 1\.1: "),
        ({"damping": 0.6}, r"--damping 0\.6: "),
        (
            {"solver": "obs"},
            "--solver obs: Input should be 'sparsegpt', 'alps', 'wanda' or 'magnitude'",
        ),
        ({"include": "("}, r"--include \(: not a regular expression"),
        ({"sparsity": 0.5}, "there is no field 'sparsity'"),
        ({"calibration": "off-policy"}, "needs either --traces FILE or --trace-model NAME"),
        (
            {"calibration": "off-policy", "traces": "a", "trace_model": "b"},
            "needs either --traces FILE or --trace-model NAME",
        ),
        ({"traces": "a"}, "go with --calibration off-policy only"),
        ({"propagate": "pruned", "collector": "decode"}, "use --collector replay"),
        ({"propagate": "pruned", "hessians": "h"}, "--hessians needs --propagate dense"),
        ({"collector": "replay", "keep_hessians": True}, "--keep-hessians needs"),
    ],
)
def test_refusals(values, message):
    with pytest.raises(UserError, match=message) as raised:
        make_recipe(values)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "a: [1", "\x00", ""])
def test_files_that_are_no_recipe(text, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"r\.yaml") as raised:
        read_recipe(path)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="cannot read the recipe"):
        read_recipe(tmp_path / "none.yaml")
