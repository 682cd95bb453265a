"""The plan: bytes by hand, the collector that fits, and what is refused before work starts."""

import io

import psutil
import pytest
import torch
from rich.console import Console

import rac.plan
from rac.calibration import find_groups
from rac.calibration.capture import STAGED_TOKENS
from rac.engines.cache import cache_columns
from rac.errors import UserError
from rac.models import load_model
from rac.plan import cache_bytes, format_bytes, free_memory, make_plan, tensor_bytes
from rac.recipe import Recipe


@pytest.fixture(scope="module")
def model(source_of):
    return load_model(source_of("llama"), "cpu")


@pytest.fixture(scope="module")
def groups(model):
    return find_groups(model)


# llama: 3 layers; inputs of 32 (q/k/v), 32 (o), 32 (gate/up), 48 (down), float32.
ONE_LAYER = 4 * (3 * 32**2 + 48**2)


def test_bytes(model, groups):
    recipe = Recipe(calibration="prompt", tokens=1000)
    plan = make_plan(model, groups, recipe)
    factor = 3 * 4 * 48**2
    assert plan.memory == {
        "Hessians": 3 * ONE_LAYER,
        "staging": 2 * STAGED_TOKENS["cpu"] * 4 * 3 * (3 * 32 + 48),
        "next Hessian": 4 * 48**2,
        "factor": factor,
        "model": 4 * sum(p.numel() for p in model.parameters()),
    }
    plan = make_plan(model, groups, Recipe(tokens=1000, collector="replay", batch_size=5))
    assert plan.memory["Hessians"] == ONE_LAYER
    assert plan.memory["hidden states"] == 2 * 1000 * 32 * 4
    # 2 (K and V) * 3 layers * 2 heads * 8 * 4 bytes, 5 rows as long as the context, and slack
    rows = 2 * 3 * 16 * 4 * 5 * cache_columns(256)
    assert plan.memory["cache"] == cache_bytes(model, recipe) * 5 / 64 == rows
    assert plan.disk["traces"] == 16_000
    assert tensor_bytes(model) == plan.disk["checkpoint"]


@pytest.mark.parametrize("collector", ["auto", "decode", "replay"])
def test_collector_as_asked_or_as_it_fits(collector, model, groups):
    plan = make_plan(model, groups, Recipe(collector=collector, tokens=1000))
    assert plan.collector == {"auto": "decode"}.get(collector, collector)
    plan = make_plan(model, groups, Recipe(propagate="pruned", tokens=1000))
    assert plan.collector == "replay" and "pruned" in plan.reason


def with_free(monkeypatch, count: float) -> None:
    monkeypatch.setattr(rac.plan, "free_memory", lambda device: int(count))


def test_replay_where_all_hessians_do_not_fit(model, groups, monkeypatch):
    recipe = Recipe(calibration="text", tokens=1000)
    need = sum(v for k, v in make_plan(model, groups, recipe).memory.items() if k != "model")
    with_free(monkeypatch, need / 0.9 + 2)
    assert make_plan(model, groups, recipe).collector == "decode"
    with_free(monkeypatch, need / 0.9 - 2)
    plan = make_plan(model, groups, recipe)
    assert plan.collector == "replay" and "all Hessians at once would need" in plan.reason


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"collector": "decode"}, "--collector decode needs .* of .* free; --collector replay"),
        ({"collector": "replay"}, "replay needs .* use fewer --tokens or a smaller --batch-size"),
        ({}, "replay needs .* free memory"),
        ({"keep_hessians": True}, "--keep-hessians needs the decode collector"),
        ({"hessians": "run"}, "--hessians needs the decode collector"),
    ],
)
def test_too_little_memory_is_refused(changes, message, model, groups, monkeypatch):
    with_free(monkeypatch, 1000)
    with pytest.raises(UserError, match=message):
        make_plan(model, groups, Recipe(tokens=1000, **changes))


def test_of_reused_hessians_two_are_in_memory(model, groups, monkeypatch):
    with_free(monkeypatch, 4 * 4 * 48**2 / 0.9 + 2)
    plan = make_plan(model, groups, Recipe(hessians="run"))
    assert plan.collector == "decode" and plan.memory["next Hessian"] == 4 * 48**2


def test_free_memory_is_the_systems():
    assert 0 < free_memory(torch.device("cpu")) <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    "count, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (44_500_000_000, "44.5 GB"),
        (5e12, "5000.0 GB"),
    ],
)
def test_format_bytes(count, text):
    assert format_bytes(count) == text


def test_the_printed_plan_says_what_and_why(model, groups):
    stream = io.StringIO()
    recipe = Recipe(tokens=40_000, pattern="2:4")
    make_plan(model, groups, recipe).print(recipe, groups, Console(file=stream, width=200))
    text = stream.getvalue()
    for part in (
        "21 linears, 12 Hessians",
        "2:4 by sparsegpt",
        "rac, 40,000 tokens",
        "decode: one",
    ):
        assert part in text
    assert text.count("\n") == 7
