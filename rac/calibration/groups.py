"""Which linears read the same input, found by watching one tiny forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rac.errors import UserError
from rac.models import get_weight, layer_index, linears
from rac_kernels import PackedTriangle


@dataclass(frozen=True)
class Group:
    """Linears that share an input, hence one Hessian [in_features, in_features]."""

    name: str
    layer: int
    linears: tuple[str, ...]
    in_features: int

    @property
    def hessian_bytes(self) -> int:
        """Bytes of the group's Hessian, a packed float32 triangle."""
        return 4 * PackedTriangle.numel(self.in_features)


@contextmanager
def input_hooks(
    modules: dict[str, nn.Module], function: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call `function(name, input)` before each of `modules` runs."""

    def hook(name: str) -> Callable:
        return lambda module, args: function(name, args[0])

    handles = [m.register_forward_pre_hook(hook(name)) for name, m in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def not_finite(name: str) -> UserError:
    """Say that the activations that enter `name` are not finite."""
    return UserError(
        f"the activations that enter {name} hold NaN or Inf; run the model in a wider dtype "
        "(--dtype float32) or check the checkpoint"
    )


def check_finite(name: str, values: Tensor) -> None:
    """Refuse activations that are not finite.

    Raises:
        UserError: names the layer that they enter.
    """
    if not torch.isfinite(values).all():
        raise not_finite(name)


@torch.inference_mode()
def find_groups(model: PreTrainedModel, names: set[str] | None = None) -> list[Group]:
    """Group the linears called `names` (all, if None) by the tensor that they read, in order.

    Two linears share an input when the model's own forward hands both the same memory, so nothing
    depends on what the modules are called.

    Raises:
        UserError: the forward pass gives NaN or Inf; names the layer.
    """
    modules = linears(model)
    seen: dict[tuple, list[str]] = {}
    kept: list[Tensor] = []  # while it lives, no other tensor can take its memory

    def record(name: str, x: Tensor) -> None:
        check_finite(name, x)
        kept.append(x)
        key = (x.data_ptr(), x.shape, x.stride(), x._version if not x.is_inference() else 0)
        seen.setdefault((layer_index(model, name), *key), []).append(name)

    with input_hooks(modules, record):
        device = next(model.parameters()).device
        ids = torch.arange(8, device=device)[None]  # several: the padding id's embedding is zero
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    check_finite("the softmax over the vocabulary", logits)
    groups = []
    for key, members in seen.items():
        wanted = tuple(dict.fromkeys(m for m in members if names is None or m in names))
        if wanted:
            in_features = get_weight(modules[wanted[0]]).shape[1]
            groups.append(Group(wanted[0], key[0], wanted, in_features))
    return sorted(groups, key=lambda group: group.layer)
