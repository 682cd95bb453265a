"""Hessians of every collector against a float64 sum made here, one sequence at a time."""

import pytest
import torch
from conftest import ARCHITECTURES, VOCABULARY

from rac.calibration import (
    HessianCollector,
    Replay,
    Sequence,
    batches,
    collect_in_one_pass,
    cut_to_budget,
    find_groups,
    from_traces,
)
from rac.engines import Generation, Sampling, Trace
from rac.engines.fused import Fused
from rac.errors import UserError
from rac.models import linears, load_model

BUDGET = 700


def decode(model, groups, budget=BUDGET, batch_size=3):
    """Traces and the collector that watched them being decoded."""
    generator = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in (5, 40, 3, 12, 21)
    ]
    collector = HessianCollector(model, groups)
    options = {"batch_size": batch_size, "observer": collector, "token_budget": budget}
    generation = Generation(model, prompts, Sampling(50, 1.0), **options)
    traces = []
    with collector.attached():
        while not generation.done:
            traces += generation.step()
    collector.finish()
    return sorted(traces, key=lambda t: t.index), collector


@torch.inference_mode()
def direct_hessians(model, sequences: list[list[int]]) -> dict[str, torch.Tensor]:
    """X^T X in float64 of every linear, by a forward hook and unpadded single sequences."""
    sums: dict[str, torch.Tensor] = {}

    def hook(name):
        def add(module, args, output):
            x = args[0].reshape(-1, args[0].shape[-1]).double()
            sums[name] = sums.get(name, 0) + x.T @ x

        return add

    handles = [m.register_forward_hook(hook(name)) for name, m in linears(model).items()]
    for ids in sequences:
        model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return sums


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Frobenius error of the lower triangle, the one that is valid."""
    difference = got.double().tril() - expected.tril()
    return float(difference.norm() / expected.tril().norm())


def check_hessians(collector: HessianCollector, truth: dict[str, torch.Tensor]) -> None:
    for group in collector.groups:
        for name in group.linears:
            assert relative_error(collector.hessian(group.name), truth[name]) <= 1e-5, name


def replayed(model, groups, todo) -> list[HessianCollector]:
    replay = Replay(model, todo)
    collectors = []
    for layer in sorted({g.layer for g in groups}):
        collectors.append(replay.collect([g for g in groups if g.layer == layer]))
        replay.advance(rerun=False)
    return collectors


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decode_and_replay_equal_a_direct_sum(architecture, source_of):
    source = source_of(architecture, dtype=torch.float32)
    model = load_model(source, "cpu")
    groups = find_groups(model)
    traces, decoded = decode(model, groups)
    sequences = from_traces(traces)
    truth = direct_hessians(load_model(source, "cpu").double(), [s.ids for s in sequences])
    tokens = {"prompt": sum(len(t.prompt_ids) for t in traces)}
    tokens["decode"] = BUDGET - tokens["prompt"]

    check_hessians(decoded, truth)
    assert decoded.tokens == tokens
    todo = list(batches(sequences, batch_tokens=256))
    for collector in replayed(model, groups, todo):
        check_hessians(collector, truth)
        assert collector.tokens == tokens
    one_pass = HessianCollector(model, groups)
    collect_in_one_pass(one_pass, todo)
    check_hessians(one_pass, truth)
    assert one_pass.tokens == tokens


def test_padding_never_enters(source_of):
    """The padding id's embedding is huge, so that one leaked row would dominate every Hessian."""
    model = load_model(source_of("phi", dtype=torch.float32), "cpu")
    groups = find_groups(model)
    model.get_input_embeddings().weight.data[0] *= 1e4
    model.get_output_embeddings().bias.data[0] = -1e4  # never sampled
    traces, decoded = decode(model, groups)
    sequences = from_traces(traces)
    assert not any(0 in s.ids for s in sequences)
    truth = direct_hessians(model, [s.ids for s in sequences])
    check_hessians(decoded, truth)
    for collector in replayed(model, groups, list(batches(sequences))):
        check_hessians(collector, truth)


def test_a_layer_of_replay_sees_what_the_model_gives_it(source_of):
    """The hidden states that enter each layer, sliding and full attention mixed."""
    model = load_model(source_of("gemma2", dtype=torch.float32), "cpu")
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in (60, 33, 7)]
    replay = Replay(model, list(batches([Sequence(i, len(i)) for i in ids])))
    with torch.inference_mode():
        truth = [
            model(input_ids=torch.tensor([i]), output_hidden_states=True).hidden_states for i in ids
        ]
    for layer in range(1, 4):
        replay.advance(rerun=False)
        for row, states in enumerate(truth):
            got = replay.hidden[0][row, : len(ids[row])]
            torch.testing.assert_close(got, states[layer][0], rtol=1e-4, atol=1e-4)
    assert "forward" not in vars(replay.layers[0])  # the model is as it was


def test_hooks_and_forwards_are_removed(source_of):
    model = load_model(source_of(), "cpu")
    forwards = [vars(module).get("forward") for module in model.modules()]
    groups = find_groups(model)
    replayed(model, groups, list(batches([Sequence([5, 6, 7], 1)])))
    decode(model, groups)
    assert forwards == [vars(module).get("forward") for module in model.modules()]
    assert not any(isinstance(f, Fused) and f.sink for f in forwards)
    for module in model.modules():
        assert not module._forward_pre_hooks and not module._forward_hooks


def test_only_the_groups_asked_for_are_collected(source_of):
    model = load_model(source_of(), "cpu")
    groups = find_groups(model, {"model.layers.1.mlp.down_proj"})
    collector = HessianCollector(model, groups)
    collect_in_one_pass(collector, list(batches([Sequence([5, 6, 7], 1)])))
    assert list(collector.hessians) == ["model.layers.1.mlp.down_proj"]
    assert collector.tokens == {"prompt": 1, "decode": 2}


def test_nan_activations_name_the_layer(source_of):
    model = load_model(source_of(), "cpu")
    groups = find_groups(model)
    model.get_submodule("model.layers.1.mlp.up_proj").weight.data[3, 4] = float("nan")
    collector = HessianCollector(model, groups)
    with pytest.raises(UserError, match=r"enter model\.layers\.1\.mlp\.down_proj hold NaN"):
        collect_in_one_pass(collector, list(batches([Sequence([5, 6, 7], 3)])))
    with pytest.raises(UserError, match=r"enter model\.layers\.1\.mlp\.down_proj hold NaN"):
        find_groups(model)


def test_cut_to_budget():
    sequences = [Sequence([1, 2, 3], 2), Sequence([], 0), Sequence([4] * 9, 1), Sequence([5], 1)]
    assert cut_to_budget(sequences, 100, 100) == [sequences[0], *sequences[2:]]
    assert cut_to_budget(sequences, 5, 100) == [sequences[0], Sequence([4, 4], 1)]
    assert cut_to_budget(sequences, 1, 100) == [Sequence([1], 1)]
    assert cut_to_budget(sequences, 100, 4) == [sequences[0], Sequence([4] * 4, 1), sequences[3]]
    assert cut_to_budget(sequences, 7, 4) == [sequences[0], Sequence([4] * 4, 1)]


def test_traces_become_what_was_fed():
    traces = [Trace(0, [1, 2], [3, 4, 5], "stop"), Trace(1, [6], [7]), Trace(2, [8, 9], [])]
    expected = [Sequence([1, 2, 3, 4], 2), Sequence([6], 1), Sequence([8, 9], 2)]
    assert from_traces(traces) == expected


@pytest.mark.parametrize("batch_tokens", [1, 10, 24, 1000])
def test_batches_hold_every_sequence_once(batch_tokens):
    sequences = [Sequence(list(range(10 * n, 10 * n + n)), n // 2) for n in range(1, 9)]
    rows = []
    for batch in batches(sequences, batch_tokens):
        assert batch.ids.shape == batch.real.shape == batch.prompt.shape
        assert batch.ids.numel() <= max(batch_tokens, batch.ids.shape[1])
        assert not (batch.prompt & ~batch.real).any()
        for ids, real, prompt in zip(batch.ids, batch.real, batch.prompt, strict=True):
            assert (ids[~real] == 0).all()
            rows.append(Sequence(ids[real].tolist(), int(prompt.sum())))
    assert sorted(rows, key=lambda s: len(s.ids)) == sequences
