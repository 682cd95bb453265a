"""Packed checkpoints through plain `from_pretrained`: tokens, casts and saving."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import read_tensors
from packing import embedded, greedy, prune_folder
from transformers import AutoModel, AutoModelForCausalLM

from rac.engines import Sampling, generate
from rac.engines.describe import fingerprint
from rac.engines.fused import FusedMLP
from rac.models import load_model
from rac.packed.linears import LINEARS, DenseLinear, Linear2to4, LinearBitmap, PackedLinear
from rac.packed.pack import pack

ROOT = Path(__file__).parent.parent
NAME = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module", params=["2:4", "0.5"])
def both(request, tmp_path_factory) -> tuple[Path, Path]:
    """The embedded model pruned, dense and packed, in shards."""
    folder = tmp_path_factory.mktemp("packed")
    source = embedded(folder / "source", request.param, max_shard_size="2MB")
    pack(source, folder / "packed")
    return source, folder / "packed"


@pytest.mark.parametrize("dtype", ["auto", torch.float32])
def test_the_same_tokens(dtype, both):
    source, folder = both
    assert greedy(folder, dtype=dtype) == greedy(source, dtype=dtype)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gemma3", "opt"])
def test_the_same_logits_of_every_kind_of_model(architecture, source_of, tmp_path):
    source = prune_folder(source_of(architecture), tmp_path / "source")
    pack(source, tmp_path / "packed")
    ids = torch.arange(3, 40)[None]
    dense, model = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for folder in (source, tmp_path / "packed")
    )
    assert any(isinstance(module, PackedLinear) for module in model.modules())
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, dense(ids).logits, rtol=1e-4, atol=1e-4)


ORDERS = {
    "rac first": "import rac\nfrom transformers import AutoModelForCausalLM",
    "transformers first": "from transformers import AutoModelForCausalLM\nimport rac",
    "the lazy module alone first": "import transformers, rac\n"
    "from transformers import AutoModelForCausalLM",
    "rac twice": "import rac, importlib\nimportlib.reload(rac)\n"
    "from transformers import AutoModelForCausalLM\nimportlib.reload(rac)",
}


@pytest.mark.parametrize("order", ORDERS)
def test_either_import_may_come_first(order, packed):
    code = f"""
{ORDERS[order]}
model = AutoModelForCausalLM.from_pretrained({str(packed)!r})
print(type(model.get_submodule({NAME!r})).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.stdout.strip() == "Linear2to4", done.stderr


def test_no_dense_weight_is_kept(both):
    source, folder = both
    model = AutoModelForCausalLM.from_pretrained(folder)
    held = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    files = sum(tensor.nbytes for tensor in read_tensors(folder).values())
    assert files <= held < files + 10_000  # rotary frequencies
    module = model.get_submodule(NAME)
    assert not hasattr(module, "weight") and model.dtype == torch.bfloat16
    assert repr(module).split("(")[1].startswith("in_features=256, out_features=768, bias=False")


def test_bias_and_casts(source_of, tmp_path):
    """A cast changes the bias and what goes in and out; what is packed stays as it is."""
    source = prune_folder(source_of("qwen2"), tmp_path / "source")
    pack(source, tmp_path / "packed")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    module = model.get_submodule("model.layers.1.self_attn.q_proj")
    before = {name: tensor.clone() for name, tensor in module.named_buffers()}
    weight = read_tensors(source)["model.layers.1.self_attn.q_proj.weight"]
    bias = read_tensors(source)["model.layers.1.self_attn.q_proj.bias"]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        model.to(dtype)
        assert module.bias.dtype == dtype
        assert {name: t.dtype for name, t in before.items()} == {
            name: t.dtype for name, t in module.named_buffers()
        }
        x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
        expected = x.double() @ weight.double().T + bias.double()
        y = module(x)
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), expected, rtol=0.02, atol=0.02)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.named_buffers())


def test_state_dict_round_trip(both):
    model = AutoModelForCausalLM.from_pretrained(both[1])
    module = model.get_submodule(NAME)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    other = type(module)(module.packed.map(torch.zeros_like))
    other.load_state_dict(state)
    assert all(torch.equal(getattr(other, name), tensor) for name, tensor in state.items())


@pytest.mark.parametrize("shard", ["1GB", "2MB"])
def test_a_loaded_model_can_be_saved(shard, both, tmp_path):
    _, folder = both
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "saved", max_shard_size=shard)
    before, after = read_tensors(folder), read_tensors(tmp_path / "saved")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert greedy(tmp_path / "saved") == greedy(folder)


def test_the_base_model_alone(packed, tmp_path):
    base = AutoModel.from_pretrained(packed)
    full = AutoModelForCausalLM.from_pretrained(packed)
    ids = torch.arange(3, 20)[None]
    assert isinstance(base.get_submodule("layers.1.mlp.up_proj"), Linear2to4)
    assert torch.equal(base(ids).last_hidden_state, full.model(ids).last_hidden_state)
    base.save_pretrained(tmp_path / "base")
    again = AutoModel.from_pretrained(tmp_path / "base")
    assert torch.equal(base(ids).last_hidden_state, again(ids).last_hidden_state)


def test_eval_of_a_packed_model(rac, both, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    for folder in both:
        code, out, err = rac(
            *("eval", "--model", folder, "--limit", 4, "--temperature", 0),
            *("--max-new-tokens", 60, "--quiet"),
        )
        assert (code, err) == (0, [])
        lines.append([line for line in out if not line.startswith(("minutes", "written"))])
    assert lines[0] == lines[1] and (tmp_path / "eval-packed" / "eval").is_dir()


def test_two_packed_prunings_differ_in_their_fingerprint(both, tmp_path):
    model = load_model(both[1], "cpu")
    print_before = fingerprint(model)
    assert fingerprint(load_model(both[1], "cpu")) == print_before
    model.get_submodule(NAME).weight_values[0] += 1
    assert fingerprint(model) != print_before


def test_every_format_has_its_linear():
    assert set(LINEARS) == {"2:4", "2:4-fp8", "bitmap"} and LINEARS["bitmap"] is LinearBitmap


def test_the_engine_fuses_what_is_packed(both):
    """SwiGLU and norms as in the dense model, and the same tokens from its decode loop."""
    prompts = [[5, 6, 7], [8, 9, 10, 11]]
    outputs = []
    for folder in both:
        model = load_model(folder, "cpu")
        assert all(isinstance(layer.mlp.forward, FusedMLP) for layer in model.model.layers)
        traces = sorted(generate(model, prompts, Sampling(20, 0)), key=lambda trace: trace.index)
        outputs.append([trace.output_ids for trace in traces])
    assert outputs[0] == outputs[1] and len(outputs[0][0]) > 3


def test_what_is_prepared_for_a_weight_goes_with_it(both):
    """One packed object as long as the weight is the same, another one once it is not."""
    module = AutoModelForCausalLM.from_pretrained(both[1]).get_submodule(NAME)
    first = module.packed
    assert module.packed is first and first.values is module.weight_values
    module.to(torch.float32)
    assert module.packed is first
    module.load_state_dict(module.state_dict())
    second = module.packed
    assert second is not first
    module.weight_values = module.weight_values.clone()
    assert module.packed is not second and module.packed.values is module.weight_values
    assert copy.deepcopy(module).packed.values is not module.weight_values


def test_what_stays_dense_is_fast_too(both):
    """The head of a packed model is a linear_dense, in bf16."""
    source, folder = both
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert type(model.lm_head) is DenseLinear and not model.lm_head.bias
    dense = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    x = torch.randn(2, 3, model.lm_head.in_features, dtype=torch.bfloat16)
    with torch.inference_mode():
        ours, expected = model.lm_head(x), dense.lm_head(x)
    torch.testing.assert_close(ours, expected, rtol=2**-7, atol=2**-7)
    wide = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        assert wide.lm_head(x.float()).dtype == torch.float32
