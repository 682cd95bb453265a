"""Train the embedded reasoner from nothing: `python -m rac.assets.train --out DIR`.

Everything is generated from the seed. Sequences are whole documents (a problem with its chain, or
a paragraph of generic text, 7:1), so no compute goes to cut-off pieces.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rac.assets.problems import generate_problems
from rac.assets.text import generate_text
from rac.assets.tokenizer import THINK, build_tokenizer

MAX_LENGTH = 512
IGNORED = -100
PROMPT_WEIGHT = 0.2  # names and numbers of a problem cannot be predicted; its chain can


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """The untrained model: Qwen2 as in R1-Distill-Qwen, 3.2M parameters."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)


def documents(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[list[int]]:
    """Token ids of training documents, one paragraph of text after every seven problems."""
    problems = generate_problems("train", seed)
    paragraphs = generate_text("train", seed)
    for index in itertools.count():
        if index % 8 == 7:
            yield tokenizer(next(paragraphs) + tokenizer.eos_token)["input_ids"]
            continue
        problem = next(problems)
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": problem.prompt}],
            tokenize=False,
            add_generation_prompt=True,
        )
        yield tokenizer(prompt + problem.response + tokenizer.eos_token)["input_ids"]


def collate(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pad `rows` into `input_ids` and next-token `labels`, both [B, T] int64."""
    ids = torch.full((len(rows), max(map(len, rows))), pad)
    labels = torch.full_like(ids, IGNORED)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        labels[index, : len(row) - 1] = torch.tensor(row[1:])
    return ids, labels


def orthogonalise(update: Tensor, iterations: int = 5) -> Tensor:
    """Newton-Schulz iteration towards `U V^T` of `update = U S V^T` (the Muon optimiser)."""
    x = update / (update.norm() + 1e-7)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(iterations):
        gram = wide @ wide.T
        wide = 3.4445 * wide + (2.0315 * gram @ gram - 4.7750 * gram) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, scaled to AdamW's step size (arXiv 2502.16982, eq. 4).

    torch.optim.Muon iterates in bfloat16, which CPUs without bf16 instructions run 400x slower.
    """

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.1})

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter."""
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(buffer, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * group["lr"] * max(p.shape) ** 0.5)


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up, then a cosine to 2% of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def weighted_loss(logits: Tensor, ids: Tensor, labels: Tensor, think: int) -> tuple[Tensor, float]:
    """Next-token loss with full weight on the chain; also the chain's own mean loss."""
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(labels)
    real = labels != IGNORED
    chain = (ids == think).cumsum(1).bool() & real
    weight = PROMPT_WEIGHT * real + (1 - PROMPT_WEIGHT) * chain
    return (losses * weight).sum() / weight.sum(), losses[chain].mean().item()


def train(out: Path, steps: int, batch: int, peak: float, seed: int, device: str) -> None:
    """Train, log every 50 steps, and save bf16 safetensors with the tokenizer into `out`."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(MAX_LENGTH)
    think = tokenizer.convert_tokens_to_ids(THINK)
    model = build_model(tokenizer).to(device)
    hidden = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is h for h in hidden)]
    optimizers = [Muon(hidden, peak), torch.optim.AdamW(others, peak, (0.9, 0.98), weight_decay=0)]
    stream = documents(tokenizer, seed)
    start = time.time()
    for step in range(steps):
        ids, labels = collate(list(itertools.islice(stream, batch)), tokenizer.pad_token_id)
        ids, labels = ids.to(device), labels.to(device)
        loss, chain_loss = weighted_loss(model(input_ids=ids).logits, ids, labels, think)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, peak)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step % 50 == 49:
            row = {"step": step + 1, "loss": loss.item(), "chain_loss": chain_loss}
            print(json.dumps(row | {"seconds": round(time.time() - start)}), flush=True)
        if step % 250 == 249 or step == steps - 1:
            save(model, tokenizer, out)


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Save a bf16 copy of `model` that plain `from_pretrained` loads."""
    copy = Qwen2ForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        max_length=MAX_LENGTH,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    copy.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Read the flags and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    train(args.out, args.steps, args.batch, args.learning_rate, args.seed, args.device)


if __name__ == "__main__":
    main()
