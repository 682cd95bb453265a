"""Tokens/s of whole-model decoding: dense in bf16 and fp32, and with packed sparse linears.

    python -m benchmarks.bench_throughput [--models runs/smollm2 ...] [--layers N] [--batches B ...]
                                          [--dtypes bf16] [--device cuda] [--threads N]
                                          [--out benchmarks/results] [--resume]

A row is written as soon as it is measured; `--resume` leaves out those that --out has from this
commit. What is pruned is laid out as in the paper's Table 4: the first third of the decoder layers,
the first and the last, all; at 2:4, at 2:4 in fp8 and, packed as a bitmap, at 50%. Weights are the
same in all contenders, pruned by magnitude: dense with zeros in bf16, or packed; activations in
bf16 or fp32. The engine, cache and sampler (greedy) are ours in all, with all they do for a dense
model: sibling linears as one product, oneDNN's own layout for fp32 and linear_dense for bf16 on a
CPU, fused norms, SwiGLU and attention, all layers as one call where weights have 16 bits.
"torch_bf16" leaves the linears to torch and calls module after module, with our norms and attention
kernel all the same. They take turns, a round of steps each. Before any timing packed and dense must
decode the same greedy tokens with fp32 activations, where those are asked for, and give the same
logits within rounding with bf16 ones; in fp8, where activations are rounded too, the logits alone
are compared.

Embeddings, the head and the attention over the cache are dense in all, and counted. All contenders
are in memory at once, an estimated 20 bytes a parameter, 6 with `--dtypes bf16`, which the whole
1.5B needs in 24 GB.
"""

import copy
import statistics
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from benchmarks.bench_decode import advance, shape_config
from benchmarks.common import bench_options, environment, report, time_once
from benchmarks.rows import holds, read_results
from rac.engines import Generation, Sampling, generate
from rac.engines.attention import use_grouped_attention
from rac.engines.fused import fuse
from rac.engines.fused_step import fuse_step
from rac.engines.stacked import stack
from rac.errors import UserError
from rac.models import decoder_layers, linears
from rac.packed.linears import Linear2to4, Linear2to4FP8, LinearBitmap
from rac.pruning.scope import select_linears
from rac_kernels import Pattern, magnitude, unpack_2to4

SMOLLM2 = Path("runs/smollm2")
QWEN = "R1-Distill-Qwen-1.5B"
LAYOUTS = {"first third": "first", "first and last third": "first-last", "all": "all"}
FORMATS = {
    "2:4": ("2:4", Linear2to4),
    "2:4-fp8": ("2:4", Linear2to4FP8),
    "bitmap": ("0.5", LinearBitmap),
}
DTYPES = ("fp32", "bf16")
BATCHES = (1, 4, 16)
PROMPT, CHECKED, WARM_UP = 32, 8, 2
BF16_ERROR = 0.03  # of logits; sums in another order round differently, layer after layer
BF16_SPREAD = 2.0  # times what the dense model in bf16 is off, where float32 says so
FP8_ERROR = 0.3  # activations keep 4 bits, layer after layer
KEYS = ("device", "gpu", "cpu", "instruction_set", "threads", "commit")
KEYS += ("model", "layers", "layout", "format", "B")


def load_dense(model: str, layers: int | None, device: str) -> nn.Module:
    """A folder's model, or random weights in a real model's shapes, in bf16; `layers` shorten it.

    Raises:
        UserError: the folder is missing.
    """
    if model == QWEN:
        config = shape_config(QWEN)
        config.num_hidden_layers = layers or config.num_hidden_layers
        config.layer_types = config.layer_types[: config.num_hidden_layers]
        torch.manual_seed(0)
        with torch.device(device):
            dense = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        return dense.eval().requires_grad_(False)
    if not (Path(model) / "config.json").is_file():
        raise UserError(f"--models {model}: no such folder; python benchmarks/smollm2.py makes it")
    options = {} if layers is None else {"num_hidden_layers": layers}
    dense = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, **options)
    return dense.to(device).eval().requires_grad_(False)


def prune(dense: nn.Module, scope: str, pattern: str, kind: type) -> tuple[nn.Module, list[str]]:
    """A copy with the linears in `scope` pruned by magnitude, and their names."""
    pruned = copy.deepcopy(dense)
    names = select_linears(pruned, scope)
    for name in names:
        weight = pruned.get_submodule(name).weight
        weight.copy_(magnitude(weight, Pattern.parse(pattern))[0])
        if kind is Linear2to4FP8:
            packed = kind.pack(weight)
            weight.copy_(unpack_2to4(packed).float() * packed.scale[:, None])
    return pruned, names


def contenders(
    pruned: nn.Module, names: list[str], kind: type, dtypes: list[str]
) -> dict[str, nn.Module]:
    """The pruned model dense and packed, in each dtype of activations, ready to decode."""
    packed = same_tensors(pruned)
    for name, linear in linears(packed).items():
        # stacking moves a linear's parameters: the dense model's are to stay where they are
        for part, tensor in [*linear.named_parameters()]:
            setattr(linear, part, nn.Parameter(tensor.data, requires_grad=False))
        if name in names:
            packed.set_submodule(name, kind(kind.pack(linear.weight), linear.bias))
    models = {"dense_bf16": pruned, "packed_bf16": packed}
    if "fp32" in dtypes:
        models |= {
            name.replace("bf16", "fp32"): copy.deepcopy(model).float()
            for name, model in models.items()
        }
    models["torch_bf16"] = same_tensors(pruned)
    stacked = []
    for name, model in models.items():
        use_grouped_attention(model)
        if name != "torch_bf16":
            stacked += stack(model)
        fuse(model)
        if name != "torch_bf16":
            fuse_step(model)
    if not all(joint.intact for joint in stacked):
        raise RuntimeError("a contender's stacked linears were moved by another's")
    return models


def same_tensors(model: nn.Module) -> nn.Module:
    """A copy of the modules with the same parameters and buffers."""
    return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def prompts(batch: int) -> list[list[int]]:
    """Token ids, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, 1000, (batch, PROMPT), generator=generator).tolist()


@torch.inference_mode()
def check(models: dict[str, nn.Module], kind: type) -> None:
    """Packed and dense decode the same tokens; in bf16, give the same logits within a rounding.

    Raises:
        RuntimeError: they do not.
    """
    if "dense_fp32" in models and kind is not Linear2to4FP8:
        sampling = Sampling(CHECKED, 0)
        dense, packed = (
            sorted((t.index, t.output_ids) for t in generate(models[name], prompts(2), sampling))
            for name in ("dense_fp32", "packed_fp32")
        )
        if dense != packed:
            raise RuntimeError("packed and dense models decode different tokens in fp32")
    device = next(models["dense_bf16"].parameters()).device
    ids = torch.tensor(prompts(2), device=device)
    dense, packed = (models[name](ids).logits.float() for name in ("dense_bf16", "packed_bf16"))
    error = float((packed - dense).norm() / dense.norm())
    allowed = BF16_ERROR
    if kind is Linear2to4FP8:
        allowed = FP8_ERROR
    elif "dense_fp32" in models:  # each about as far from it, in directions of their own
        exact = models["dense_fp32"](ids).logits
        allowed = BF16_SPREAD * float((dense - exact).norm() / dense.norm())
    if not error <= allowed:
        raise RuntimeError(f"logits of packed and dense models in bf16 differ by {error:.2%}")


def tokens_per_second(models: dict[str, nn.Module], batch: int, options) -> dict[str, float]:
    """Decoded tokens a second of each model, median of the rounds."""
    runs, times = {}, {name: [] for name in models}
    length = WARM_UP + options.repeats * options.steps + 2
    for name, model in models.items():
        run = Generation(model, prompts(batch), Sampling(length, 0), batch_size=batch)
        run.schedule.stop_ids = set()
        advance(run, WARM_UP, options.device)
        runs[name] = run
    for _ in range(options.repeats):
        for name, run in runs.items():
            step = partial(advance, run, options.steps, options.device)
            times[name].append(time_once(step, options.device))
    return {k: batch * options.steps / statistics.median(v) for k, v in times.items()}


def bench(dense: nn.Module, name: str, layout: str, format: str, options) -> None:
    """All batches of one layout and format."""
    pattern, kind = FORMATS[format]
    head = {"op": "throughput", "device": options.device, "model": name}
    head |= {"layers": len(decoder_layers(dense)[1]), "layout": layout, "format": format}
    wanted = [head | {"B": batch} for batch in options.batches]
    if options.resume:
        here = environment() | {"threads": torch.get_num_threads()}
        found = read_results(options.out, "throughput")
        wanted = [row for row in wanted if not holds(found, row | here, KEYS)]
    if not wanted:
        return
    models = contenders(*prune(dense, LAYOUTS[layout], pattern, kind), kind, options.dtypes)
    check(models, kind)
    for row in wanted:
        rates = tokens_per_second(models, row["B"], options)
        best = {k: max(rates[f"{k}_{d}"] for d in options.dtypes) for k in ("dense", "packed")}
        row["steps"] = options.steps
        row |= {f"{k}_tokens_per_s": rate for k, rate in rates.items()}
        row |= {f"{k}_bytes": nbytes(models[f"{k}_bf16"]) for k in ("dense", "packed")}
        row["speedup"] = best["packed"] / best["dense"]
        row["over_torch_bf16"] = best["packed"] / rates["torch_bf16"]
        report(row, options.out, "throughput")


def nbytes(model: nn.Module) -> int:
    """Bytes of all weights in the decoder layers."""
    layers = decoder_layers(model)[1]
    return sum(tensor.nbytes for tensor in (*layers.parameters(), *layers.buffers()))


def default_models() -> list[str]:
    """SmolLM2 where it has been made (see smollm2.py), and random weights."""
    made = (SMOLLM2 / "config.json").is_file()
    return [str(SMOLLM2), QWEN] if made else [QWEN]


def main() -> None:
    parser = bench_options(__doc__)
    parser.add_argument("--models", nargs="+", default=default_models(), help=f"folders, or {QWEN}")
    parser.add_argument("--layers", type=int, help="first layers only")
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--steps", type=int, default=8, help="in a round")
    parser.add_argument("--resume", action="store_true", help="measure what --out lacks")
    options = parser.parse_args()
    if options.resume and options.out is None:
        parser.error("--resume needs --out, where the rows are")
    if "bf16" not in options.dtypes:
        parser.error("--dtypes needs bf16")
    if options.quick:
        options.batches = options.batches[:1]
    torch.set_num_threads(options.threads)
    for model in options.models[:1] if options.quick else options.models:
        dense = load_dense(model, options.layers, options.device)
        name = model if model == QWEN else "SmolLM2-135M"
        count = len(linears(dense))
        print(f"{name}: {count} linears", flush=True)
        for layout in options.layouts:
            for format in options.formats:
                bench(dense, name, layout, format, options)


if __name__ == "__main__":
    main()
