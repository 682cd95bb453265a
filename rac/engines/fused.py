"""Fused forwards for the norms and MLPs of Llama-like blocks (Llama, Qwen2, Qwen3 and kin).

A fused forward computes the module's own value in one kernel and, where a sink is set, appends it
to the sink's staging ring in the same kernel. Whether a module can be fused is not read off its
class: its own forward and the fused one are compared on random input, once, when a model is loaded.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rac.packed.linears import PackedLinear
from rac_kernels import CaptureBuffer, rmsnorm_capture, swiglu_capture

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Sink(Protocol):
    """Where the inputs of linears go."""

    def staging(self, name: str, x: Tensor) -> tuple[CaptureBuffer | None, Tensor | None]:
        """The ring for rows like `x`, and the active ones; None: call `capture`."""

    def capture(self, name: str, x: Tensor) -> None:
        """Take `x`, which enters the linears of group `name`."""


class Fused:
    """Stands in for a module's forward; `sink` and `group` say where its value also goes.

    LAST names the linear that reads the value, where it is the module's own.
    """

    LAST = ""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.own = module, module.forward
        self.sink: Sink | None = None
        self.group = ""

    def _capturing(self, x: Tensor, kernel: Callable[..., Tensor]) -> Tensor:
        """`kernel`'s value for rows like `x`, on its way into the sink."""
        if self.sink is None:
            return kernel()
        buffer, active = self.sink.staging(self.group, x)
        value = kernel(buffer=buffer, active=active)
        if buffer is None:
            self.sink.capture(self.group, value)
        return value


class FusedNorm(Fused):
    """`weight * x / rms(x)`, rounded as transformers' RMSNorm modules do."""

    def __call__(self, x: Tensor) -> Tensor:
        """The normed x [..., D]."""
        if x.dtype not in DTYPES:
            return self.own(x)
        norm = self.module
        eps = norm.variance_epsilon
        return self._capturing(x, lambda **ring: rmsnorm_capture(x, norm.weight, eps, **ring))


class FusedMLP(Fused):
    """`down(silu(gate(x)) * up(x))`; what enters `down` goes into the sink."""

    LAST = "down_proj"

    def __call__(self, x: Tensor) -> Tensor:
        """The MLP's output [..., D]."""
        if x.dtype not in DTYPES:
            return self.own(x)
        mlp = self.module
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        return mlp.down_proj(self._capturing(gate, lambda **ring: swiglu_capture(gate, up, **ring)))


def fuse(model: PreTrainedModel) -> int:
    """Fuse every norm and MLP of `model` that computes what the fused forward does; how many."""
    count = 0
    for module in model.modules():
        fused = _candidate(module)
        if fused is not None and _agrees(fused):
            module.forward = fused
            count += 1
    return count


def _candidate(module: nn.Module) -> Fused | None:
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim == 1 and hasattr(module, "variance_epsilon"):
        return FusedNorm(module)
    names = ("gate_proj", "up_proj", "down_proj")
    kinds = (nn.Linear, PackedLinear)
    if all(isinstance(getattr(module, name, None), kinds) for name in names):
        return FusedMLP(module)
    return None


@torch.inference_mode()
def _agrees(fused: Fused) -> bool:
    """Whether both forwards give the same on random rows, up to one rounding of the dtype."""
    module = fused.module
    first = module if isinstance(fused, FusedNorm) else module.gate_proj
    packed = isinstance(first, PackedLinear)
    weight = first.weight_values if packed else first.weight
    width = first.in_features if packed else weight.shape[-1]
    generator = torch.Generator(weight.device).manual_seed(0)
    x = torch.randn(3, width, device=weight.device, generator=generator)
    x = x.to(torch.bfloat16 if packed else weight.dtype)
    try:
        own, ours = module(x), fused(x)
    except (TypeError, ValueError, AttributeError):
        return False
    bound = 4 * torch.finfo(x.dtype).eps
    return own.shape == ours.shape and bool(
        ((own - ours).abs() <= bound * own.abs().maximum(own.abs().mean())).all()
    )


@torch.inference_mode()
def producers(model: PreTrainedModel, readers: dict[str, nn.Module]) -> dict[str, Fused]:
    """The fused forwards whose value is what `readers` (linears by name) read, by that name.

    Found as groups are: both hand over the same memory in one tiny forward pass.
    """
    made: dict[tuple, tuple[Fused, Tensor]] = {}
    found: dict[str, Fused] = {}
    handles = []

    def key(x: Tensor) -> tuple:
        return (x.data_ptr(), x.shape, x.stride())

    def wrote(fused: Fused) -> Callable:
        return lambda module, args, output: made.update({key(output): (fused, output)})

    def reads(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if key(args[0]) in made:
                found[name] = made[key(args[0])][0]

        return hook

    for module in model.modules():
        forward = module.forward
        if isinstance(forward, FusedNorm):
            handles.append(module.register_forward_hook(wrote(forward)))
        elif isinstance(forward, Fused):
            last = getattr(module, forward.LAST)
            found |= {n: forward for n, m in readers.items() if m is last}
    handles += [m.register_forward_pre_hook(reads(name)) for name, m in readers.items()]
    ids = torch.arange(2, device=next(model.parameters()).device)[None]
    model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    for handle in handles:
        handle.remove()
    return found
