"""What a run will need, computed and printed before it starts, and obeyed."""

import resource
import sys
from dataclasses import dataclass, field

import psutil
import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from rac.calibration import Group
from rac.calibration.capture import staged_tokens
from rac.engines.cache import cache_columns
from rac.engines.inputs import context_length
from rac.errors import UserError
from rac.recipe import Recipe

HEADROOM = 0.9  # share of the free memory that a plan may use


@dataclass
class Plan:
    """The collector, why it was chosen, and bytes by purpose."""

    collector: str
    reason: str
    memory: dict[str, int] = field(default_factory=dict)
    disk: dict[str, int] = field(default_factory=dict)

    def print(self, recipe: Recipe, groups: list[Group], console: Console) -> None:
        """Print the plan as a table."""
        table = Table(title="plan", title_justify="left", show_header=False, box=None)
        linears = sum(len(group.linears) for group in groups)
        table.add_row("model", f"{recipe.model}: {linears} linears, {len(groups)} Hessians")
        table.add_row("pattern", f"{recipe.pattern} by {recipe.solver}, scope {recipe.scope}")
        if recipe.hessians:
            table.add_row("calibration", f"Hessians of {recipe.hessians}")
        else:
            table.add_row("calibration", f"{recipe.calibration}, {recipe.tokens:,} tokens")
            table.add_row("collector", f"{self.collector}: {self.reason}")
        for title, sizes in (("memory", self.memory), ("disk", self.disk)):
            parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes.items())
            table.add_row(title, f"{format_bytes(sum(sizes.values()))} ({parts})")
        console.print(table)


def format_bytes(count: float) -> str:
    """Bytes with a decimal unit, e.g. "44.5 GB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def free_memory(device: torch.device) -> int:
    """Bytes free on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def peak_memory(model: PreTrainedModel) -> int:
    """Peak bytes of this process on the model's device."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tensor_bytes(model: PreTrainedModel) -> int:
    """Bytes of the model's parameters, shared ones once."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def cache_bytes(model: PreTrainedModel, recipe: Recipe, longest_prompt: int = 512) -> int:
    """Upper bound of the decode cache's bytes: every row as long as it may become."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    longest = min(context_length(model), recipe.max_new_tokens + longest_prompt, recipe.tokens)
    per_token = 2 * config.num_hidden_layers * heads * head_dim * model.dtype.itemsize
    return recipe.batch_size * cache_columns(longest) * per_token


def make_plan(
    model: PreTrainedModel, groups: list[Group], recipe: Recipe, longest_prompt: int = 512
) -> Plan:
    """Choose the collector and count bytes.

    Raises:
        UserError: what was asked for does not fit into the free memory.
    """
    item = model.dtype.itemsize
    hessians = sum(group.hessian_bytes for group in groups)
    layers = {group.layer for group in groups}
    one_layer = max(sum(g.hessian_bytes for g in groups if g.layer == i) for i in layers)
    widest = max(group.in_features for group in groups)
    # float32 [C, C] held while a layer is solved: H, its factor and what they are made from
    solving = (6 if recipe.solver == "alps" else 3) * 4 * widest**2
    following = 4 * widest**2  # read while a layer is solved
    hidden = recipe.tokens * model.config.get_text_config().hidden_size * item
    device = next(model.parameters()).device
    slots = max(recipe.batch_size, staged_tokens(device))
    decode = {
        "Hessians": hessians,
        "staging": 2 * slots * sum(group.in_features for group in groups) * item,
        "next Hessian": following,
        "factor": solving,
    }
    replay = {"Hessians": one_layer, "hidden states": 2 * hidden, "factor": solving}
    if recipe.hessians:
        decode = {"next Hessian": following, "factor": solving}
    elif recipe.calibration == "rac":
        decode["cache"] = replay["cache"] = cache_bytes(model, recipe, longest_prompt)
        if device.type == "cpu" and model.dtype == torch.float32:
            decode["packed weights"] = replay["packed weights"] = tensor_bytes(model)
    free = free_memory(device)
    plan = _choose(recipe, decode, replay, free)
    plan.memory["model"] = tensor_bytes(model)
    plan.disk = {"checkpoint": tensor_bytes(model), "traces": 16 * recipe.tokens}
    # the last snapshot and the finished Hessians, for a moment; hidden states, written aside
    plan.disk["state"] = 2 * hessians if plan.collector == "decode" else 2 * hidden
    return plan


def _choose(recipe: Recipe, decode: dict, replay: dict, free: int) -> Plan:
    need_decode, need_replay = sum(decode.values()), sum(replay.values())
    fits = need_decode <= HEADROOM * free
    sizes = f"{format_bytes(need_decode)} of {format_bytes(free)} free"
    if recipe.collector == "decode" and not fits:
        raise UserError(
            f"--collector decode needs {sizes}; --collector replay would need "
            f"{format_bytes(need_replay)}"
        )
    if (recipe.hessians or recipe.keep_hessians) and not fits:
        flag = "--hessians" if recipe.hessians else "--keep-hessians"
        raise UserError(f"{flag} needs the decode collector, and that needs {sizes}")
    if recipe.collector == "replay" or recipe.propagate == "pruned" or not fits:
        if need_replay > HEADROOM * free:
            raise UserError(
                f"replay needs {format_bytes(need_replay)} of {format_bytes(free)} free memory; "
                "use fewer --tokens or a smaller --batch-size"
            )
        reason = "as asked" if recipe.collector == "replay" else "activations of pruned layers"
        if not fits:
            reason = f"all Hessians at once would need {sizes}"
        return Plan("replay", f"one layer at a time, {reason}", dict(replay))
    return Plan("decode", f"one pass, all Hessians fit: {sizes}", dict(decode))
