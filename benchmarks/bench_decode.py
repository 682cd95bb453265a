"""Tokens/s of decoding: plain, with Hessians captured on the way, and with pruners' usual hooks.

    python -m benchmarks.bench_decode [--device cuda] [--threads N] [--out benchmarks/results]

All decode the same prompts with the same engine, cache and sampler; the three take turns, a round
of steps each. `hooks` is what pruning scripts do when they meet activations: a forward hook on
every linear that adds X^T X in float32, one H a linear; it cannot run inside a CUDA graph, so its
decoding is eager, and it is left out where its H would take a quarter of a GPU's memory. A round
has as many steps as fill the ring, or a multiple; where that would be too many, no flush falls into
a round: one is measured alone, and its share of a step added.
"""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmarks.common import bench_options, report, time_once, wait_for
from rac.calibration import HessianCollector, find_groups
from rac.calibration.groups import input_hooks
from rac.engines import Generation, Sampling
from rac.engines.attention import use_grouped_attention
from rac.engines.fused import fuse
from rac.engines.fused_step import fuse_step
from rac.engines.stacked import stack
from rac.models import linears, load_model

# name: hidden, ffn, layers, heads, key/value heads, vocabulary
SHAPES = {
    "R1-Distill-Qwen-1.5B": (1536, 8960, 28, 12, 2, 151936),
    "R1-Distill-Qwen-7B": (3584, 18944, 28, 28, 4, 152064),
    "R1-Distill-Qwen-14B": (5120, 13824, 48, 40, 8, 152064),
    "SmolLM2-135M, 6 layers": (576, 1536, 6, 9, 3, 49152),
}
MODELS = {"cpu": ("embedded", "SmolLM2-135M, 6 layers"), "cuda": tuple(SHAPES)[:2]}
BATCHES = {"cpu": (1, 16, 64), "cuda": (1, 16, 64, 256)}
ROUNDS, WARM_UP = 3, 4
# A prompt after which every step of a measurement has the same cache window, hence one graph.
PROMPT = {"cpu": 64, "cuda": 1030}
STEPS = {"cpu": 16, "cuda": 64}


def shape_config(name: str) -> Qwen2Config:
    """The configuration of a real model's exact shapes."""
    hidden, ffn, layers, heads, kv_heads, vocabulary = SHAPES[name]
    return Qwen2Config(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=32768,
        tie_word_embeddings=False,
    )


def random_model(name: str, device: str) -> nn.Module:
    """Random weights of a real model's exact shapes, made on the device."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(shape_config(name), dtype=dtype)
    use_grouped_attention(model)
    model = model.eval().requires_grad_(False)
    stack(model)
    fuse(model)
    fuse_step(model)
    return model


class HookCollector:
    """What pruning scripts do: every linear its own H, in float32, at every call."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.hessians: dict[str, torch.Tensor] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hook the model for the length of a `with` block."""
        with input_hooks(linears(self.model), self._add):
            yield

    def _add(self, name: str, x: torch.Tensor) -> None:
        x = x.flatten(0, -2).float()
        if name not in self.hessians:
            self.hessians[name] = x.new_zeros(x.shape[1], x.shape[1])
        self.hessians[name] += x.T @ x

    def prefill(self, *arguments: object) -> None:
        """Part of an observer."""

    open_step = step = prefill


def decoding(model: nn.Module, batch: int, steps: int, observer: object) -> Generation:
    """`batch` rows that decode until they are stopped."""
    length = PROMPT[next(model.parameters()).device.type]
    ids = torch.randint(3, 100, (batch, length), generator=torch.Generator().manual_seed(0))
    sampling = Sampling(ROUNDS * steps + WARM_UP + 1, 1.0, 0.95)
    run = Generation(model, ids.tolist(), sampling, batch_size=batch, observer=observer)
    run.schedule.stop_ids = set()
    if isinstance(observer, HookCollector):
        run.decode_step.recordable = False
    return run


def advance(run: Generation, steps: int, device: str) -> None:
    """`steps` steps, to their end on the device."""
    for _ in range(steps):
        run.step()
    wait_for(device)


def bench(model: nn.Module, name: str, batch: int, options) -> dict:
    """Milliseconds a step of the three contenders, in turns."""
    collector = HessianCollector(model, find_groups(model))
    kind = options.device.split(":")[0]
    to_fill, most = max(1, collector.slots // batch), 2 * STEPS[kind]
    amortised = to_fill > most
    steps = STEPS[kind] if amortised else to_fill * max(1, STEPS[kind] // to_fill)
    observers: dict = {"plain": None, "capture": collector}
    if kind == "cpu" or hook_bytes(model) < torch.cuda.mem_get_info()[1] // 4:
        observers["hooks"] = HookCollector(model)
    times: dict[str, list[float]] = {name: [] for name in observers}
    runs: dict[str, Generation] = {}
    for turn in range(ROUNDS + 1):  # the first one only warms up
        for contender, observer in observers.items():
            with nullcontext() if observer is None else observer.attached():
                if turn == 0:
                    runs[contender] = decoding(model, batch, steps, observer)
                count = steps if turn else WARM_UP
                run = partial(advance, runs[contender], count, options.device)
                seconds = time_once(run, options.device)
            if turn:
                times[contender].append(seconds / steps)
    collector.finish()
    milliseconds = {k: statistics.median(v) * 1e3 for k, v in times.items()}
    if amortised:
        flush_ms = flush_milliseconds(collector, options.device) * batch / collector.slots
        milliseconds["capture"] += flush_ms
    hooks = milliseconds.get("hooks")
    return {
        "op": "decode",
        "device": options.device,
        "model": name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "B": batch,
        "steps": steps,
        "plain_ms": milliseconds["plain"],
        "capture_ms": milliseconds["capture"],
        "hooks_ms": hooks,
        "plain_tokens_per_s": 1e3 * batch / milliseconds["plain"],
        "capture_tokens_per_s": 1e3 * batch / milliseconds["capture"],
        "hooks_tokens_per_s": hooks and 1e3 * batch / hooks,
        "overhead": milliseconds["capture"] / milliseconds["plain"] - 1,
        "hooks_overhead": hooks and hooks / milliseconds["plain"] - 1,
        "flush_amortised": amortised,
        "graphs": any(runs["capture"].decode_step.graphs.values()),
    }


def hook_bytes(model: nn.Module) -> int:
    """Bytes of an H for every linear, float32."""
    return sum(4 * linear.weight.shape[1] ** 2 for linear in linears(model).values())


def flush_milliseconds(collector: HessianCollector, device: str) -> float:
    """One flush of full rings."""

    def fill_and_flush() -> float:
        for buffer in collector._buffers.values():
            buffer.rows.normal_()
            buffer.state[0] = buffer.slots
        collector._staged = collector.slots
        return time_once(collector.finish, device)

    return 1e3 * statistics.median(fill_and_flush() for _ in range(3))


def main() -> None:
    parser = bench_options(__doc__)
    parser.add_argument("--models", nargs="+", help="embedded, or names of shapes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kind = options.device.split(":")[0]
    names = options.models or MODELS[kind]
    for name in names[:1] if options.quick else names:
        if name == "embedded":
            model = load_model("embedded", options.device)
        else:
            model = random_model(name, options.device)
        for batch in BATCHES[kind][:2] if options.quick else BATCHES[kind]:
            try:
                row = bench(model, name, batch, options)
            except torch.cuda.OutOfMemoryError as error:
                print(f"{name}, batch {batch}: {str(error).splitlines()[0]}", flush=True)
                torch.cuda.empty_cache()
                continue
            report(row, options.out, "decode")
        del model


if __name__ == "__main__":
    main()
