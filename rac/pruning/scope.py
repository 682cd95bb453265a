"""Which linears a run prunes."""

import re

from torch import nn
from transformers import PreTrainedModel

from rac.errors import UserError
from rac.models import decoder_layers, layer_index, linears

KINDS = ("all", "mlp", "attention")
THIRDS = ("first", "middle", "last", "first-last")


def select_linears(
    model: PreTrainedModel, scope: str, include: str | None = None, exclude: str | None = None
) -> list[str]:
    """Names of the linears in scope, in the model's order.

    `scope` is a comma-separated choice of a kind (all, mlp, attention) and a third of the layers
    (first, middle, last, first-last), e.g. "mlp,first-last". A linear belongs to the attention when
    one of the modules around it has an attention class; the rest of a layer is its mlp.

    Raises:
        UserError: an unknown word, or nothing is left to prune.
    """
    words = [word.strip() for word in scope.split(",") if word.strip()]
    unknown = [word for word in words if word not in KINDS + THIRDS]
    if unknown or not words:
        raise UserError(f"--scope {scope}: expected words from {', '.join(KINDS + THIRDS)}")
    count = len(decoder_layers(model)[1])
    names = []
    for name in linears(model):
        kind = "attention" if _inside_attention(model, name) else "mlp"
        kinds = [word for word in words if word in KINDS]
        if kinds and "all" not in kinds and kind not in kinds:
            continue
        thirds = [word for word in words if word in THIRDS]
        if thirds and not any(_in_third(layer_index(model, name), count, t) for t in thirds):
            continue
        if include and not re.search(include, name):
            continue
        if exclude and re.search(exclude, name):
            continue
        names.append(name)
    if not names:
        raise UserError(
            f"nothing to prune: no linear matches --scope {scope} --include {include} "
            f"--exclude {exclude}; this model's are like {', '.join(list(linears(model))[:7])}"
        )
    return names


def _inside_attention(model: PreTrainedModel, name: str) -> bool:
    prefix = decoder_layers(model)[0]
    module: nn.Module = model.get_submodule(prefix)
    for part in name[len(prefix) + 1 :].split(".")[:-1]:
        module = module.get_submodule(part)
        if "attention" in type(module).__name__.lower():
            return True
    return False


def _in_third(index: int, count: int, third: str) -> bool:
    """Thirds as equal as can be: layer `index` is in the first if `3 * index < count`, etc."""
    position = 3 * index // count
    return position in {"first": (0,), "middle": (1,), "last": (2,), "first-last": (0, 2)}[third]
