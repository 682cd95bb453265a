"""Which linears each --scope, --include and --exclude choose."""

import pytest
from conftest import build_model

from rac.errors import UserError
from rac.models import layer_index, linears
from rac.pruning import select_linears


@pytest.fixture(scope="module")
def model():
    return build_model("llama", num_hidden_layers=7)


@pytest.mark.parametrize("architecture", ["llama", "phi", "gpt_neox", "opt", "gpt2"])
def test_attention_and_mlp_are_complements(architecture):
    model = build_model(architecture)
    attention = set(select_linears(model, "attention"))
    mlp = set(select_linears(model, "mlp"))
    assert attention | mlp == set(linears(model)) and not attention & mlp
    words = {"attn", "self_attn", "attention"}
    assert attention == {name for name in linears(model) if words & set(name.split("."))}
    assert select_linears(model, "all") == list(linears(model))


# 7 layers: 3 * i // 7 gives thirds 0 0 0 1 1 2 2.
@pytest.mark.parametrize(
    "scope, layers",
    [
        ("first", {0, 1, 2}),
        ("middle", {3, 4}),
        ("last", {5, 6}),
        ("first-last", {0, 1, 2, 5, 6}),
        ("first,middle", {0, 1, 2, 3, 4}),
    ],
)
def test_thirds(model, scope, layers):
    names = select_linears(model, scope)
    assert {layer_index(model, name) for name in names} == layers
    assert len(names) == 7 * len(layers)


def test_kinds_and_thirds_combine(model):
    names = select_linears(model, " mlp , last ")
    assert names == [
        f"model.layers.{i}.mlp.{p}_proj" for i in (5, 6) for p in ("gate", "up", "down")
    ]


@pytest.mark.parametrize("layers", [1, 2])
def test_thirds_of_very_few_layers(layers):
    model = build_model("llama", num_hidden_layers=layers)
    thirds = [set(select_linears(model, "first"))]
    for third in ("middle", "last"):
        try:
            thirds.append(set(select_linears(model, third)))
        except UserError:
            thirds.append(set())
    assert sum(map(len, thirds)) == len(linears(model)) == len(set().union(*thirds))


def test_include_and_exclude(model):
    names = select_linears(model, "all", include=r"q_proj|k_proj", exclude=r"layers\.[0-4]\.")
    assert names == [f"model.layers.{i}.self_attn.{p}_proj" for i in (5, 6) for p in "qk"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("everything",), "--scope everything: expected words from all, mlp, attention"),
        (("",), "--scope : expected"),
        (("all", "no_such_layer"), "nothing to prune: .* --include no_such_layer .*q_proj"),
        (("all", None, "."), "nothing to prune"),
    ],
)
def test_refusals(model, arguments, message):
    with pytest.raises(UserError, match=message):
        select_linears(model, *arguments)
