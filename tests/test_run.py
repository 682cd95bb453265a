"""Whole runs in this process: what lies in the directory, what is reused, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from conftest import read_tensors, save_source

import rac.run
from rac.errors import UserError
from rac.models import load_model
from rac.prompts import load_prompts
from rac.recipe import Recipe, make_recipe, read_recipe
from rac.run import prune, trace
from rac.traces import read_traces, traces_complete


@pytest.fixture
def recipe(source_of, prompt_file) -> Recipe:
    return Recipe(
        model=str(source_of()),
        prompts=str(prompt_file),
        tokens=500,
        max_new_tokens=30,
        batch_size=4,
        temperature=1.0,
    )


def changed(recipe: Recipe, **changes: object) -> Recipe:
    return make_recipe(recipe.model_dump() | changes)


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_the_directory_of_a_finished_run(recipe, tmp_path):
    result = prune(recipe, tmp_path / "run", quiet=True)
    assert result == tmp_path / "run" / "model"
    source = {p.name for p in Path(recipe.model).iterdir()}
    expected = {f"model/{name}" for name in source | {"rac.json", "recipe.yaml"}}
    assert files(tmp_path / "run") == expected | {"recipe.yaml", "traces.parquet"}
    for path in ("recipe.yaml", "model/recipe.yaml"):
        assert make_recipe(read_recipe(tmp_path / "run" / path)) == recipe


@pytest.mark.parametrize("collector", ["decode", "replay"])
def test_the_record(recipe, collector, tmp_path):
    recipe = changed(recipe, collector=collector)
    result = prune(recipe, tmp_path / "run", quiet=True)
    record = json.loads((result / "rac.json").read_text())
    traces = read_traces(tmp_path / "run" / "traces.parquet")
    assert traces_complete(tmp_path / "run" / "traces.parquet")
    prompt_tokens = sum(len(t.prompt_ids) for t in traces)
    assert record["source_model"] == recipe.model
    for field in ("pattern", "solver", "calibration", "propagate", "collector"):
        assert record[field] == getattr(recipe, field)
    assert record["tokens"] == 500 == sum(len(t.fed_ids) for t in traces)
    assert record["prompt_tokens"] == prompt_tokens
    assert record["decode_tokens"] == 500 - prompt_tokens
    assert record["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert record["peak_memory_bytes"] > 10**7
    assert all(seconds >= 0 for seconds in record["seconds"].values())
    assert record["traces"]["count"] == len(traces)
    assert record["traces"]["lengths"] == [len(t.output_ids) for t in traces]
    assert sum(record["traces"]["finish"].values()) == len(traces)
    stored = read_tensors(result)
    assert len(record["layers"]) == 21
    for row in record["layers"]:
        weight = stored[f"{row['name']}.weight"]
        assert row["shape"] == list(weight.shape)
        assert row["sparsity"] == pytest.approx(float((weight == 0).float().mean()))
        assert 0 < row["error"] < 1 and row["damping"] == 0.01 and row["attempts"] == 1
        assert row["layer"] == int(row["name"].split(".")[2]) and row["seconds"] >= 0


@pytest.mark.parametrize("calibration", ["text", "prompt"])
def test_calibrations_without_traces(recipe, calibration, tmp_path):
    changes = {"calibration": calibration}
    if calibration == "text":
        changes["prompts"] = "embedded"
    else:
        changes["tokens"] = 200
    recipe = changed(recipe, **changes)
    for collector in ("decode", "replay"):
        own = changed(recipe, collector=collector)
        record = json.loads((prune(own, tmp_path / collector, quiet=True) / "rac.json").read_text())
        assert record["prompt_tokens"] == record["tokens"] == recipe.tokens
        assert record["decode_tokens"] == 0 and record["traces"] is None
    one, other = (read_tensors(tmp_path / c / "model") for c in ("decode", "replay"))
    agree = [(one[n] == 0).eq(other[n] == 0).float().mean() for n in one]
    assert min(agree) > 0.99


def test_fewer_prompt_tokens_than_the_budget(recipe, prompt_file, tmp_path, caplog):
    recipe = changed(recipe, calibration="prompt", tokens=100_000)
    record = json.loads((prune(recipe, tmp_path / "run", quiet=True) / "rac.json").read_text())
    from rac.models import load_tokenizer

    prompts = load_prompts(str(prompt_file), load_tokenizer(recipe.model))
    assert record["tokens"] == sum(len(p.ids) for p in prompts) < 100_000
    assert "fewer than the budget" in caplog.text


def test_trace_alone_and_off_policy_from_its_file(recipe, tmp_path):
    """The traces of `rac trace`, given back as a file, calibrate as the run's own ones do."""
    path = trace(recipe, tmp_path / "traces", quiet=True)
    assert files(tmp_path / "traces") == {"recipe.yaml", "traces.parquet"}
    stamp = path.stat().st_mtime_ns
    assert trace(recipe, tmp_path / "traces", quiet=True).stat().st_mtime_ns == stamp
    own = prune(changed(recipe, collector="replay"), tmp_path / "own", quiet=True)
    assert read_traces(path) == read_traces(tmp_path / "own" / "traces.parquet")
    changes = {"calibration": "off-policy", "traces": str(path), "collector": "replay"}
    file = prune(changed(recipe, **changes), tmp_path / "file", quiet=True)
    assert (own / "model.safetensors").read_bytes() == (file / "model.safetensors").read_bytes()
    record = json.loads((file / "rac.json").read_text())
    assert record["tokens"] == 500 and record["decode_tokens"] > 0


@pytest.mark.parametrize("collector", ["decode", "replay"])
def test_off_policy_from_a_model(recipe, source_of, collector, tmp_path):
    other = str(source_of("qwen2", seed=9))
    changes = {"calibration": "off-policy", "trace_model": other, "collector": collector}
    prune(changed(recipe, **changes), tmp_path / "run", quiet=True)
    expected = read_traces(trace(changed(recipe, model=other), tmp_path / "other", quiet=True))
    assert read_traces(tmp_path / "run" / "traces.parquet") == expected


def test_kept_hessians_give_the_same_weights(recipe, tmp_path):
    first = changed(recipe, keep_hessians=True)
    prune(first, tmp_path / "first", quiet=True)
    assert "state/hessians.safetensors" in files(tmp_path / "first")
    again = changed(recipe, pattern="2:4", hessians=str(tmp_path / "first"))
    reused = prune(again, tmp_path / "again", quiet=True)
    fresh = prune(changed(recipe, pattern="2:4"), tmp_path / "fresh", quiet=True)
    name = "model.safetensors"
    assert (reused / name).read_bytes() == (fresh / name).read_bytes()
    mine, theirs = (json.loads((p / "rac.json").read_text()) for p in (reused, fresh))
    assert mine["tokens"] == theirs["tokens"] and mine["traces"] == theirs["traces"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"hessians": "{tmp}/none"}, "no kept Hessians there; run it with --keep-hessians"),
        ({"hessians": "{tmp}/kept", "seed": 1}, "was calibrated with seed=0, this run asks for 1"),
        ({"hessians": "{tmp}/kept", "scope": "all"}, "have none for model.layers.0.mlp"),
    ],
)
def test_hessians_that_do_not_fit_are_refused_before_work(recipe, changes, message, tmp_path):
    kept = changed(recipe, keep_hessians=True, scope="attention", calibration="text")
    kept = changed(kept, prompts="embedded")
    prune(kept, tmp_path / "kept", quiet=True)
    changes = {k: str(v).format(tmp=tmp_path) for k, v in changes.items()}
    again = changed(kept, **{"keep_hessians": False} | changes)
    with pytest.raises(UserError, match=message):
        prune(again, tmp_path / "again", quiet=True)
    assert not (tmp_path / "again").exists()


def test_a_finished_run_is_not_done_again(recipe, tmp_path, monkeypatch):
    result = prune(recipe, tmp_path / "run", quiet=True)
    stamps = {p: p.stat().st_mtime_ns for p in result.iterdir()}
    monkeypatch.setattr(rac.run, "load_model", None)  # it would be called
    assert prune(recipe, tmp_path / "run", quiet=True) == result
    assert {p: p.stat().st_mtime_ns for p in result.iterdir()} == stamps


def test_another_recipe_in_the_same_directory_is_refused(recipe, tmp_path):
    prune(recipe, tmp_path / "run", quiet=True)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in files(tmp_path / "run")}
    with pytest.raises(UserError, match=r"holds a run with pattern=0\.5, not 2:4; choose another"):
        prune(changed(recipe, pattern="2:4"), tmp_path / "run", quiet=True)
    after = {name: (tmp_path / "run" / name).read_bytes() for name in files(tmp_path / "run")}
    assert after == before


def test_a_refused_recipe_can_be_corrected_in_the_same_directory(recipe, tmp_path):
    with pytest.raises(UserError, match="--scope nothing"):
        prune(changed(recipe, scope="nothing"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    prune(changed(recipe, scope="mlp"), tmp_path / "run", quiet=True)


def test_the_source_is_never_overwritten(recipe, tmp_path):
    """OUT/model is where the result goes; a model that lies there already is somebody's."""
    source = save_source(tmp_path / "work" / "model")
    before = {p.name: p.read_bytes() for p in source.iterdir()}
    for model in (str(source), recipe.model):
        with pytest.raises(UserError, match="exists and is not the result of a run"):
            prune(changed(recipe, model=model), tmp_path / "work", quiet=True)
    assert {p.name: p.read_bytes() for p in source.iterdir()} == before


def test_a_pruned_model_can_be_the_source(recipe, tmp_path):
    first = prune(changed(recipe, pattern="0.3"), tmp_path / "first", quiet=True)
    second = prune(changed(recipe, model=str(first)), tmp_path / "second", quiet=True)
    assert make_recipe(read_recipe(second / "recipe.yaml")).model == str(first)
    assert json.loads((second / "rac.json").read_text())["pattern"] == "0.5"


def test_combinations_are_checked_for_library_users_too(recipe, tmp_path):
    bad = recipe.model_copy(update={"calibration": "off-policy"})
    with pytest.raises(UserError, match="needs either --traces"):
        prune(bad, tmp_path / "run", quiet=True)
    for calibration in ("text", "prompt"):
        own = changed(recipe, calibration=calibration)
        with pytest.raises(UserError, match="use --calibration rac"):
            trace(own, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_sparsity_of_scope_and_damping_escalation(recipe, tmp_path):
    """Fewer tokens than columns and no damping: H is singular, and the record says what it took."""
    recipe = changed(recipe, tokens=20, damping=0, scope="mlp,last", calibration="prompt")
    result = prune(recipe, tmp_path / "run", quiet=True)
    record = json.loads((result / "rac.json").read_text())
    assert [row["name"] for row in record["layers"]] == [
        f"model.layers.2.mlp.{p}_proj" for p in ("gate", "up", "down")
    ]
    assert any(row["attempts"] > 1 and row["damping"] > 0 for row in record["layers"])
    before = load_model(recipe.model, "cpu").state_dict()
    after = load_model(result, "cpu").state_dict()
    changed_names = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed_names == {f"{row['name']}.weight" for row in record["layers"]}


def test_bars_on_a_terminal(recipe, tmp_path, monkeypatch, capsys):
    """Progress is drawn on stderr; what it shows changes nothing."""
    quiet = prune(recipe, tmp_path / "quiet", quiet=True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    loud = prune(recipe, tmp_path / "loud")
    assert "plan" in capsys.readouterr().err
    name = "model.safetensors"
    assert (quiet / name).read_bytes() == (loud / name).read_bytes()
