"""Tiny random models of every supported shape, built in code."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter; it must be known before the first @triton.jit decorates.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import transformers
from instruction_sets import using
from transformers import AutoModelForCausalLM, PreTrainedModel

from rac.assets.tokenizer import build_tokenizer

# The server starts with the first process of the session; what it has imported is shared by all.
_SHARED = ["rac.run", "pandas", "transformers.models.llama.modeling_llama"]
multiprocessing.set_forkserver_preload(_SHARED)

CONTEXT = 256
VOCABULARY = len(build_tokenizer(CONTEXT))
END_ID = 2

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": END_ID,
    "initializer_range": 0.2,
}
_GROUPED = _COMMON | {"num_key_value_heads": 2, "intermediate_size": 48}
_GEMMA = _GROUPED | {
    "head_dim": 8,
    "num_hidden_layers": 4,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}

# name -> (configuration class, its arguments): every shape of linear, sharing and attention once.
ARCHITECTURES: dict[str, tuple[str, dict]] = {
    "llama": ("LlamaConfig", _GROUPED | {"tie_word_embeddings": False}),
    "qwen2": ("Qwen2Config", _GROUPED | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", _GROUPED | {"head_dim": 16, "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", _GROUPED | {"sliding_window": 16}),
    "gemma2": ("Gemma2Config", _GEMMA | {"query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", _GEMMA | {"query_pre_attn_scalar": 8}),
    "phi": ("PhiConfig", _COMMON | {"intermediate_size": 64, "partial_rotary_factor": 0.5}),
    "gpt_neox": ("GPTNeoXConfig", _COMMON | {"intermediate_size": 64}),
    "opt": ("OPTConfig", _COMMON | {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2}),
    "gpt2": ("GPT2Config", _COMMON | {"n_inner": 64}),
}


def build_model(architecture: str, *, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A random float32 model in eval mode; `changes` override its configuration."""
    kind, arguments = ARCHITECTURES[architecture]
    config = getattr(transformers, kind)(**arguments | changes)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():  # no norm or bias is trivial
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name or "ln" in name else 0.0, 0.1)
    model.generation_config.eos_token_id = END_ID
    model.generation_config.pad_token_id = 0
    return model.eval().requires_grad_(False)


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> list[None]:
    """A list that grows by one with each call of a class's method."""
    calls: list[None] = []
    own = getattr(owner, method)
    monkeypatch.setattr(owner, method, lambda *a, **k: calls.append(None) or own(*a, **k))
    return calls


def save_source(
    folder: Path,
    architecture: str = "llama",
    *,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_size: str = "1GB",
    chat_template: bool = True,
    **changes: object,
) -> Path:
    """Save a random model and its character tokenizer into `folder`, as a user would have it."""
    model = build_model(architecture, **changes).to(dtype)
    model.generation_config.temperature = 0.7
    model.generation_config.do_sample = True
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer = build_tokenizer(CONTEXT)
    if not chat_template:
        tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return folder


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint's safetensors files."""
    from safetensors.torch import load_file

    return {k: v for f in sorted(folder.glob("*.safetensors")) for k, v in load_file(f).items()}


@pytest.fixture(scope="session")
def source_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`source_of(architecture, **options)`: a saved model folder, built once, read-only."""
    folders: dict[str, Path] = {}

    def source(architecture: str = "llama", **options: object) -> Path:
        key = f"{architecture} {sorted(options.items())}"
        if key not in folders:
            folder = tmp_path_factory.mktemp(architecture)
            folders[key] = save_source(folder, architecture, **options)
        return folders[key]

    return source


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve prompts of different lengths, with answers, as JSONL."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"prompt": f"What is {'1+' * i}{i}?", "answer": str(2 * i)} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Threads only fight for the cores at these sizes."""
    torch.set_num_threads(1)


@pytest.fixture
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """The C++ kernels run with the instruction set that `every_instruction_set` names."""
    with using(request.param):
        yield request.param


@pytest.fixture
def rac(monkeypatch, capsys):
    """`rac(*arguments)`: exit code, lines of stdout, lines of stderr; runs in this process."""
    from rac.cli import main  # here: the GPU tests run where its packages may be missing

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


@pytest.fixture
def packed(tmp_path, source_of) -> Path:
    """A tiny model with 2:4 and bitmap linears, packed."""
    from packing import prune_folder

    from rac.packed.pack import pack

    pack(prune_folder(source_of(), tmp_path / "source"), tmp_path / "packed")
    return tmp_path / "packed"
