"""`propagate`: the activations of the dense model, or of the layers pruned so far."""

import pytest
import torch
from conftest import CONTEXT, read_tensors

import rac_kernels
from rac.assets.tokenizer import build_tokenizer
from rac.calibration import Replay, Sequence, batches, find_groups
from rac.models import get_weight, linears, load_model, set_weight
from rac.prompts import load_text
from rac.recipe import Recipe
from rac.run import prune
from rac_kernels import Pattern

TOKENS = 700


@torch.inference_mode()
def layer_hessians(model, groups, texts) -> dict[str, torch.Tensor]:
    """X^T X of one layer's groups by whole-model forwards of single sequences."""
    modules = linears(model)
    sums = {g.name: torch.zeros(g.in_features, g.in_features).double() for g in groups}

    def hook(name):
        def add(module, args):
            x = args[0].reshape(-1, args[0].shape[-1]).double()
            sums[name] += x.T @ x

        return add

    handles = [modules[g.name].register_forward_pre_hook(hook(g.name)) for g in groups]
    for ids in texts:
        model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: h.float() for name, h in sums.items()}


def reference(source, texts, pattern, solver, propagate) -> dict[str, torch.Tensor]:
    """Layer by layer with nothing but whole forwards: slow, plain, independent of `Replay`."""
    model, dense = load_model(source, "cpu"), load_model(source, "cpu")
    modules, groups = linears(model), find_groups(dense)
    for layer in range(model.config.num_hidden_layers):
        own = [g for g in groups if g.layer == layer]
        hessians = layer_hessians(model if propagate == "pruned" else dense, own, texts)
        for group in own:
            hessian = hessians[group.name]
            factor = rac_kernels.factor_hessian(hessian)
            for name in group.linears:
                weight = get_weight(modules[name])
                if solver == "sparsegpt":
                    weight = rac_kernels.sparsegpt(weight, factor, pattern)[0]
                else:
                    weight = rac_kernels.wanda(weight, hessian.diagonal(), pattern)[0]
                set_weight(modules[name], weight)
    return {name: get_weight(module).clone() for name, module in modules.items()}


@pytest.fixture
def texts() -> list[list[int]]:
    """The embedded text, the last document cut where the budget ends."""
    kept, left = [], TOKENS
    for ids in load_text("embedded", build_tokenizer(CONTEXT), max_tokens=TOKENS, context=CONTEXT):
        kept.append(ids[:left])
        left -= len(kept[-1])
    return [ids for ids in kept if ids]


@pytest.mark.parametrize(
    "architecture, solver, pattern",
    [
        ("llama", "sparsegpt", "0.5"),
        ("llama", "wanda", "2:4"),
        ("gemma3", "wanda", "0.5"),
        ("gpt2", "wanda", "0.5"),
    ],
)
def test_propagate_equals_the_plain_reference(
    architecture, solver, pattern, source_of, texts, tmp_path
):
    source = source_of(architecture, dtype=torch.float32)
    recipe = Recipe(
        model=str(source),
        calibration="text",
        tokens=TOKENS,
        pattern=pattern,
        solver=solver,
        collector="replay",
    )
    results = {}
    for propagate in ("dense", "pruned"):
        own = recipe.model_copy(update={"propagate": propagate})
        stored = read_tensors(prune(own, tmp_path / propagate, quiet=True))
        expected = reference(source, texts, Pattern.parse(pattern), solver, propagate)
        for name, weight in expected.items():
            got = stored[f"{name}.weight"]
            got = got.T if architecture == "gpt2" else got
            agree = (got == 0) == (weight == 0)
            assert agree.float().mean() > 0.998, name  # near ties may fall either way
            if agree.all():
                torch.testing.assert_close(got, weight, rtol=1e-2, atol=1e-3)
        results[propagate] = {name: stored[f"{name}.weight"] for name in expected}
    names = list(results["dense"])
    same = [torch.equal(results["dense"][n], results["pruned"][n]) for n in names]
    per_layer = len(names) // (4 if architecture == "gemma3" else 3)
    assert same[0]  # what enters the first layer is the same
    assert not any(same[per_layer:])  # and everything above sees the pruned layers below it


def test_rerun_uses_the_weights_that_are_there_now(source_of):
    model = load_model(source_of("llama", dtype=torch.float32), "cpu")
    ids = list(range(10, 40))
    replay = Replay(model, list(batches([Sequence(ids, 5)])))
    groups = [g for g in find_groups(model) if g.layer == 0]
    replay.collect(groups)
    module = model.get_submodule("model.layers.0.mlp.down_proj")
    module.weight.data.zero_()
    replay.advance(rerun=True)
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(replay.hidden[0], states[1], rtol=1e-4, atol=1e-4)
