"""The command line: bad input is one line and exit code 2, and leaves everything as it was."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CONTEXT, read_tensors, save_source
from safetensors.torch import load_file, save_file

from rac import plan
from rac.assets.tokenizer import build_tokenizer
from rac.checkpoint import source_shards
from rac.cli import main
from rac.engines import Trace
from rac.traces import write_traces

ROOT = Path(__file__).parent.parent


@pytest.fixture
def rac(monkeypatch, capsys):
    """`rac(*arguments)`: exit code, lines of stdout, lines of stderr; runs in this process."""

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["rac", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        lines = [x for x in output.err.splitlines() if not x.startswith("Loading weights")]
        return ended.value.code, output.out.splitlines(), lines

    return run


@pytest.fixture
def base(source_of, prompt_file, tmp_path) -> dict[str, object]:
    """Flags of a run of a second."""
    flags = {"model": source_of(), "prompts": prompt_file, "tokens": 300, "max-new-tokens": 20}
    return flags | {"batch-size": 4, "temperature": 1, "out": tmp_path / "run", "quiet": True}


def arguments(flags: dict[str, object], command: str = "prune") -> list[object]:
    parts: list[object] = [command]
    for name, value in flags.items():
        parts += [f"--{name}"] if value is True else [f"--{name}", value]
    return parts


def refused(rac, flags: dict[str, object], command: str = "prune") -> str:
    """The one line on stderr of a command that must be refused with code 2."""
    code, out, err = rac(*arguments(flags, command))
    assert code == 2 and out == [], (code, out, err)
    assert len(err) == 1 and err[0].startswith("rac: "), err
    return err[0]


def test_a_run_from_the_command_line(rac, base):
    code, out, err = rac(*arguments(base))
    assert (code, err) == (0, [])
    assert out == [f"checkpoint: {base['out']}/model"]
    zeros = [float((w == 0).float().mean()) for n, w in read_tensors(base["out"] / "model").items()]
    assert sum(z == pytest.approx(0.5, abs=0.01) for z in zeros) == 21
    assert rac(*arguments(base))[0] == 0  # finished: nothing to do
    flags = base | {"out": base["out"].parent / "traces"}
    assert rac(*arguments(flags, "trace"))[:2] == (0, [f"traces: {flags['out']}/traces.parquet"])


def test_the_plan_is_printed_unless_quiet(rac, base):
    flags = {k: v for k, v in base.items() if k != "quiet"}
    code, _, err = rac(*arguments(flags))
    assert code == 0 and err[0].strip() == "plan" and any("collector" in line for line in err)


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


def test_no_arguments_print_the_help(rac):
    code, out, err = rac()
    assert code == 0 and err == [] and "Usage" in out[0]


def test_an_interrupt_says_how_to_go_on(rac, base, monkeypatch):
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rac.run.prune", interrupt)
    assert rac(*arguments(base)) == (130, [], ["rac: interrupted; the same command continues"])


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


@pytest.mark.parametrize("collector", ["decode", "replay"])
def test_a_disk_that_fills_up_and_is_freed(collector, rac, base, tmp_path, monkeypatch):
    """Every write of the run fails in turn; the same command then continues to the same bits."""
    base = base | {"collector": collector, "snapshot-seconds": 0}
    assert rac(*arguments(base | {"out": tmp_path / "straight"}))[0] == 0
    real, writes = os.replace, []

    def replace(source: object, target: object) -> None:
        if str(target) not in writes:
            writes.append(str(target))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    for _ in range(40):
        code, _, err = rac(*arguments(base))
        if code == 0:
            break
        assert code == 2 and len(err) == 1 and ": the disk is full; free space" in err[0]
    assert code == 0 and len(writes) > 8
    name = "model/model.safetensors"
    assert (base["out"] / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def python_m_rac(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rac", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_real_process(base):
    """Nothing that a library prints gets between the user and the one line."""
    done = python_m_rac(*arguments(base | {"pattern": "2:20"}))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("rac: --pattern 2:20") and done.stderr.count("\n") == 1
    done = python_m_rac(*arguments(base))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"checkpoint: {base['out']}/model\n"


def test_info(rac):
    code, out, err = rac("info")
    names = [line.split()[0] for line in out]
    assert code == 0 and err == [] and {"torch", "transformers", "python", "kernels"} <= set(names)
