"""Bad input is one line on stderr and exit code 2, before any work; nothing is left behind."""

import shutil

import pytest
import torch
from conftest import CONTEXT, arguments, refused, save_source
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rac import plan, run_checks
from rac.assets.tokenizer import build_tokenizer
from rac.checkpoint import source_shards
from rac.engines import Trace
from rac.traces import write_traces

# What is refused -> flags that differ from `base`, and what the line must say.
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "no tokens": ({"tokens": 0}, "--tokens 0"),
    "sparsity": ({"pattern": 1.5}, "--pattern 1.5: Pattern: sparsity must be in 0..1"),
    "n:m": ({"pattern": "3:2"}, "--pattern 3:2: Pattern:"),
    "m = 0": ({"pattern": "2:0"}, "--pattern 2:0: Pattern:"),
    "in_features": (
        {"pattern": "2:20"},
        "in_features 32 of model.layers.0.self_attn.q_proj is not",
    ),
    "block size": ({"pattern": "2:4", "block-size": 30}, "--block-size 30 is not a multiple of 4"),
    "scope": ({"scope": "heads"}, "--scope heads: expected words from all, mlp"),
    "include": ({"include": "nothing_like_it"}, "nothing to prune: no linear matches"),
    "damping": ({"damping": 2}, "--damping 2"),
    "collector": (
        {"collector": "decode", "propagate": "pruned"},
        "--propagate pruned works layer by layer: use --collector replay",
    ),
    "off-policy": ({"calibration": "off-policy"}, "needs either --traces FILE or --trace-model"),
    "meta": ({"device": "meta"}, "--device meta"),
    "device": ({"device": "toaster"}, "--device toaster cannot be used"),
    "dtype": ({"dtype": "int8"}, "--dtype int8"),
    "no model": ({"model": "/no/such/model"}, "--model /no/such/model: no such folder"),
    "no hub": ({"model": "no-such-model-anywhere"}, "--model no-such-model-anywhere: no such"),
    "no prompts": ({"prompts": "/no/prompts.jsonl"}, "cannot read /no/prompts.jsonl"),
    "no text": ({"prompts": "/no/t.jsonl", "calibration": "text"}, "cannot read /no/t.jsonl"),
    "no traces": ({"calibration": "off-policy", "traces": "/no/t.parquet"}, "/no/t.parquet"),
    "no recipe": ({"recipe": "/no/recipe.yaml"}, "cannot read the recipe /no/recipe.yaml"),
    "hessians": ({"hessians": "/no/run"}, "--hessians /no/run: no kept Hessians there"),
    "unknown flag": ({"sparsity": 0.5}, "No such option: --sparsity"),
    "snapshot": ({"snapshot-seconds": -1}, "--snapshot-seconds"),
    "column": ({"prompt-column": "puzzle"}, "name one with --prompt-column"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_flags(case, rac, base):
    changes, message = REFUSED[case]
    assert message in refused(rac, base | changes)
    assert not base["out"].exists()


@pytest.mark.parametrize("words", [["prune"], ["fry"], ["prune", "--out"]])
def test_bad_command_lines(words, rac):
    code, out, err = rac(*words)
    assert code == 2 and out == [] and len(err) == 1 and err[0].endswith("see --help")


def test_a_malformed_line_is_named(rac, base, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n{oops}\n')
    assert f"{path}, line 3: not valid JSON" in refused(rac, base | {"prompts": path})
    assert not base["out"].exists()


def test_no_chat_template(rac, base, source_of):
    flags = base | {"model": source_of(chat_template=False)}
    assert "no chat template; pass --raw-prompts" in refused(rac, flags)
    assert rac(*arguments(flags | {"raw-prompts": True}))[0] == 0


def test_damaged_models(rac, base, tmp_path):
    source = save_source(tmp_path / "source", max_shard_size="15KB")
    shard = source_shards(source)[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    assert f"cannot load the model in {source}" in refused(rac, base | {"model": source})
    shard.write_bytes(content)
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").unlink()
    assert f"cannot load the tokenizer in {source}" in refused(rac, base | {"model": source})
    (source / "config.json").write_text("{")
    assert str(source) in refused(rac, base | {"model": source})
    (source / "config.json").unlink()
    assert "has no config.json" in refused(rac, base | {"model": source})
    assert not base["out"].exists()


@pytest.mark.parametrize(
    "name", ["model.layers.1.self_attn.q_proj", "model.layers.2.mlp.down_proj"]
)
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_not_finite(name, value, rac, base, tmp_path):
    source = save_source(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors[f"{name}.weight"][0, 0] = float(value)
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    message = f"rac: {name}.weight of the model holds NaN or Inf"
    assert message in refused(rac, base | {"model": source})
    assert not base["out"].exists()


def test_activations_that_overflow(rac, base, tmp_path):
    """Finite weights, but their products are not: the layer that those enter is named."""
    source = save_source(tmp_path / "source", dtype=torch.float32)
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] *= 1e30
    tensors["model.layers.1.mlp.gate_proj.weight"] *= 1e30
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    assert "the activations that enter model.layers.1.mlp.down_proj hold NaN or Inf" in refused(
        rac, base | {"model": source}
    )
    assert not base["out"].exists()


def test_a_hessian_that_is_indefinite(rac, base, tmp_path):
    """As no sum of x x^T is: the layer and the pivot are named, and both runs stay as they were."""
    kept, run = tmp_path / "kept", tmp_path / "run"
    assert rac(*arguments(base | {"out": kept, "keep-hessians": True}))[0] == 0
    file = kept / "state" / "hessians.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    name = next(n for n in tensors if "layers.1" in n and "down_proj" in n)
    tensors[name][1] = 1e6 * tensors[name].abs().max()  # above the diagonal: never read
    tensors[name][48] = 1e6 * tensors[name].abs().max()  # H_10, of 48 columns
    save_file(tensors, file, metadata)
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    line = refused(rac, base | {"out": run, "hessians": kept})
    assert f"cannot prune {name}: factor_hessian: H [48, 48] is not positive definite" in line
    assert "the pivot of column 0 is -" in line
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before
    assert not (run / "model").exists()
    assert refused(rac, base | {"out": run, "hessians": kept}) == line
    # what was solved before it is whole
    solved = sorted((run / "state" / "layers").glob("*.safetensors"))
    assert [path.name for path in solved] == ["0000.safetensors"] and len(load_file(solved[0])) == 7


def test_traces_of_another_vocabulary(rac, base, source_of, tmp_path):
    other = build_tokenizer(CONTEXT)
    other.add_tokens(["<|more|>"])
    write_traces(tmp_path / "t.parquet", [Trace(0, [5], [6, 7])], other)
    flags = base | {"calibration": "off-policy"}
    assert "another vocabulary" in refused(rac, flags | {"traces": tmp_path / "t.parquet"})
    foreign = shutil.copytree(source_of(), tmp_path / "foreign")
    other.save_pretrained(foreign)
    assert "has another vocabulary" in refused(rac, flags | {"trace-model": foreign})
    assert not base["out"].exists()


def test_too_little_memory(rac, base, monkeypatch):
    monkeypatch.setattr(plan, "free_memory", lambda device: 100_000)
    assert "free; --collector replay would need" in refused(rac, base | {"collector": "decode"})
    assert "replay needs" in refused(rac, base)
    assert not base["out"].exists()


def test_too_little_disk(rac, base, monkeypatch):
    usage = type(shutil.disk_usage("/"))(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "its disk has 0.0 GB free; free space or choose" in refused(rac, base)
    assert not base["out"].exists()


def test_a_linear_that_no_forward_reaches(rac, base, monkeypatch):
    """As an expert that the router never picks: it must not stay dense in silence."""
    find = run_checks.find_groups
    monkeypatch.setattr(run_checks, "find_groups", lambda model, names: find(model, names)[:-1])
    assert "is not reached by the model's forward pass" in refused(rac, base)
    assert not base["out"].exists()
