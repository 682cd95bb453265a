"""Figure 2: token errors against a computation by hand, what is kept, and the picture's grid."""

import gc
import json
import weakref

import numpy as np
import pytest
import torch
from conftest import arguments, build_model, refused

from rac.errors import UserError
from rac.models import load_model
from rac.report import streaming, token_reconstruction
from rac.report.heatmap import _thin, aligned, color_bound
from rac.report.reconstruction import Comparison, hidden_states
from rac.report.streaming import compare_checkpoints, greedy

PROMPTS = [[5, 9, 30], [7, 8, 20, 40, 41, 42, 43, 60], [11]]
ROLLOUTS = [[12, 13, 14, 15], [16], []]


def hidden_by_hand(model, ids):
    """The final norm's output for one sequence alone, float64 [T, D]."""
    kept = []
    norm = model.model.norm
    handle = norm.register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.no_grad():
        model(torch.tensor([ids]))
    handle.remove()
    return kept[0][0].double().numpy()


def errors_by_hand(dense, pruned, ids):
    difference = hidden_by_hand(dense, ids) - hidden_by_hand(pruned, ids)
    return np.sqrt((difference**2).sum(axis=1))


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_token_reconstruction_by_hand(architecture):
    dense = build_model(architecture, seed=0)
    pruned = build_model(architecture, seed=1)
    errors = token_reconstruction(dense, pruned, PROMPTS, ROLLOUTS)
    assert [len(row) for row in errors] == [7, 9, 1]
    for row, prompt, rollout in zip(errors, PROMPTS, ROLLOUTS, strict=True):
        np.testing.assert_allclose(row, errors_by_hand(dense, pruned, prompt + rollout), rtol=1e-4)
    same = token_reconstruction(dense, dense, PROMPTS, ROLLOUTS)
    assert all((row == 0).all() for row in same)


def rollouts_of(model, prompts, most):
    return [ids for _, ids in sorted(greedy(model, prompts, most))]


@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
def test_hidden_states_do_not_depend_on_the_batches(batch_tokens):
    model = build_model("qwen2")
    states = list(hidden_states(model, PROMPTS, batch_tokens))
    for state, ids in zip(states, PROMPTS, strict=True):
        np.testing.assert_allclose(state, hidden_by_hand(model, ids), rtol=1e-4, atol=1e-5)
    assert next(hidden_states(model.bfloat16(), PROMPTS)).dtype == torch.bfloat16


def test_greedy_rollouts_by_hand():
    model = build_model("qwen2")
    for prompt, rollout in zip(PROMPTS, rollouts_of(model, PROMPTS, 6), strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 6 and (len(ids) == len(prompt) or ids[-1] != 2):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert rollout == ids[len(prompt) :]


def comparison():
    prompt = [np.array([1, 2, 8, 8], np.float32), np.array([0, 3], np.float32)]
    rac = [np.array([1, 4, 2, 1], np.float32), np.array([0, 6], np.float32)]
    return Comparison(prompt, rac, [2, 1])


def test_ratios_and_means_by_hand():
    ratios = comparison().log2_ratios()
    np.testing.assert_allclose(ratios[0], [0, -1, 2, 3])
    np.testing.assert_allclose(ratios[1], [0, -1])  # both errors 0: equal
    assert comparison().mean_ratio("prompt") == pytest.approx(2 ** (-1 / 3))
    assert comparison().mean_ratio("decode") == pytest.approx(2 ** (4 / 3))


def test_rows_are_aligned_where_decoding_begins():
    grid, before = aligned(comparison())
    assert before == 2
    np.testing.assert_array_equal(grid, [[0, -1, 2, 3], [np.nan, 0, -1, np.nan]])
    assert color_bound(grid) == pytest.approx(np.percentile([0, 1, 2, 3, 0, 1], 98))


def test_thinning_keeps_the_boundary():
    grid = np.where(np.arange(2999) < 1001, -1.0, 1.0)[None].astype(np.float32)
    picture, left, right = _thin(grid, 1001)
    assert picture.shape[1] <= 1200 and left + right == 3 * picture.shape[1]
    assert left % 3 == 0 and 1001 <= left < 1004 and 1998 <= right < 2001
    np.testing.assert_array_equal(picture[0, : left // 3], -1)
    np.testing.assert_array_equal(picture[0, left // 3 :], 1)


@pytest.fixture
def checkpoints(tmp_path, source_of):
    """A dense model and two others with its weights and noise."""
    folders = {"dense": str(source_of("qwen2"))}
    for seed, name in enumerate(("first", "second")):
        model = load_model(folders["dense"], "cpu")
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / name)
        folders[name] = str(tmp_path / name)
    return folders


def load(folder):
    return load_model(folder, "cpu")


def test_streamed_errors_are_those_of_both_models_in_memory(checkpoints, tmp_path):
    found = compare_checkpoints(load, checkpoints, PROMPTS, 8, tmp_path / "cache")
    assert found.names == ("first", "second") and found.prompt_lengths == [3, 8, 1]
    dense = load(checkpoints["dense"])
    rollouts = rollouts_of(dense, PROMPTS, 8)
    for name, rows in (("first", found.a), ("second", found.b)):
        expected = token_reconstruction(dense, load(checkpoints[name]), PROMPTS, rollouts)
        for ours, theirs in zip(rows, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not list((tmp_path / "cache").rglob("states"))  # they are large, and done with


def test_one_model_and_few_states_are_in_memory(checkpoints, tmp_path, monkeypatch):
    models, states, alive = [], [], []

    def load_alone(folder):
        gc.collect()
        assert not any(reference() for reference in models), "the last model is still there"
        model = load(folder)
        models.append(weakref.ref(model))
        return model

    def watched(model, sequences):
        for state in hidden_states(model, sequences, batch_tokens=1):
            states.append(weakref.ref(state))
            alive.append(sum(reference() is not None for reference in states))
            yield state

    monkeypatch.setattr(streaming, "hidden_states", watched)
    prompts = [[5 + i, 9, 30] for i in range(12)]
    compare_checkpoints(load_alone, checkpoints, prompts, 4, tmp_path / "cache")
    assert len(models) == 3 and len(alive) == 36
    assert max(alive) <= 2  # of 12 sequences: this one, and the last until it is replaced


def test_an_interrupted_comparison_continues(checkpoints, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    expected = compare_checkpoints(load, checkpoints, PROMPTS, 8, tmp_path / "other")
    decoded = []

    def counted(model, prompts, most):
        for item in greedy(model, prompts, most):
            if len(decoded) == 2:
                raise KeyboardInterrupt
            decoded.append(item)
            yield item

    monkeypatch.setattr(streaming, "greedy", counted)
    with pytest.raises(KeyboardInterrupt):
        compare_checkpoints(load, checkpoints, PROMPTS, 8, cache)
    (path,) = cache.rglob("rollouts.jsonl")
    with path.open("a") as file:
        file.write('{"index": 2, "ids": [1')  # killed while writing
    monkeypatch.setattr(streaming, "greedy", greedy)

    def stop_at_second(folder):
        if folder == checkpoints["second"]:
            raise KeyboardInterrupt
        return load(folder)

    with pytest.raises(KeyboardInterrupt):
        compare_checkpoints(stop_at_second, checkpoints, PROMPTS, 8, cache)
    loaded = []

    def logged(folder):
        loaded.append(folder)
        return load(folder)

    found = compare_checkpoints(logged, checkpoints, PROMPTS, 8, cache)
    assert loaded == [checkpoints["second"]]  # rollouts, dense states and first's errors were kept
    for ours, theirs in zip(found.a + found.b, expected.a + expected.b, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert compare_checkpoints(None, checkpoints, PROMPTS, 8, cache).prompt_lengths == [3, 8, 1]
    for broken in cache.rglob("*.npz"):
        broken.write_bytes(broken.read_bytes()[:50])
    compare_checkpoints(load, checkpoints, PROMPTS, 8, cache)
    with pytest.raises(TypeError):  # other prompts: nothing of it is kept
        compare_checkpoints(None, checkpoints, PROMPTS[:2], 8, cache)


def test_another_hidden_size_is_refused(checkpoints, tmp_path):
    other = build_model("qwen2", hidden_size=64)
    other.save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match="wide has hidden size 64 and the dense model 32"):
        pair = {"dense": checkpoints["dense"], "wide": str(tmp_path / "wide")}
        compare_checkpoints(
            load, pair | {"first": checkpoints["first"]}, PROMPTS, 4, tmp_path / "c"
        )


def test_reconstruct_command(checkpoints, tmp_path, rac, prompt_file):
    flags = {k: v for k, v in zip(("dense", "a", "b"), checkpoints.values(), strict=True)}
    flags |= {"task": "jsonl", "data": prompt_file, "limit": 3, "max-new-tokens": 8}
    code, out, err = rac(*arguments(flags | {"out": tmp_path / "out"}, "reconstruct"))
    assert code == 0, err
    found = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    assert (found["a"], found["b"], found["problems"]) == ("first", "second", 3)
    assert f"{found['ratio']['decode']:.3f}" in "\n".join(out)
    assert (tmp_path / "out" / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    message = refused(rac, flags | {"b": flags["a"], "out": tmp_path / "no"}, "reconstruct")
    assert "the same checkpoint" in message and not (tmp_path / "no").exists()
