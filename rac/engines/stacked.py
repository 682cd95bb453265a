"""Linears of a decode step: siblings as one product, and on a CPU with weights packed for it.

A decode step multiplies few rows with many small matrices. One product of q, k and v takes about
two thirds of the time of three; on a CPU, oneDNN's blocked weight layout makes products of 1 to
128 rows 1.1 to 2 times as fast as the plain one, and in bf16 linear_dense reads weights at memory
speed. The modules stay, with their hooks; only what their forwards compute is shared. Weights
become views of the stacked one: nothing is held twice, but for the packed copies while they are
asked for. Linears whose sparse weights are packed (another sense of the word) are joined likewise,
if in one format.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from rac.packed.linears import HALVES, LINEARS, DenseLinear, LinearBitmap
from rac_kernels import linear_dense

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
DENSE = (nn.Linear, DenseLinear)
PACKED_ROWS = 64  # the batch that oneDNN's layout is chosen for; any batch may use it


class StackedLinears:
    """The joint product of some linears [R_i, C]; each is handed its own columns of it."""

    def __init__(self, linears: list[nn.Linear]) -> None:
        self.linears = linears
        self.sizes = [module.out_features for module in linears]
        # Packed linears have no weight of their own.
        self.weight, self.bias = getattr(linears[0], "weight", None), linears[0].bias
        if len(linears) > 1:
            self._stack()
        self.packed: Tensor | None = None
        self.input: Tensor | None = None
        self.outputs: dict[int, Tensor] = {}

    def _stack(self) -> None:
        """Make every weight (and bias) a view of the joint one."""
        with torch.no_grad():
            self.weight = torch.cat([module.weight for module in self.linears])  # [sum R_i, C]
            for module, weight in zip(self.linears, self.weight.split(self.sizes), strict=True):
                module.weight.data = weight
            if self.bias is not None:
                self.bias = torch.cat([module.bias for module in self.linears])
                for module, bias in zip(self.linears, self.bias.split(self.sizes), strict=True):
                    module.bias.data = bias

    @property
    def intact(self) -> bool:
        """The linears' parameters still lie in the joint ones; converting the model ends that."""
        width, size = self.weight.shape[1], self.weight.element_size()
        weight = self.weight.data_ptr()
        bias = 0 if self.bias is None else self.bias.data_ptr()
        for module in self.linears:
            if module.weight.data_ptr() != weight:
                return False
            if bias and (module.bias is None or module.bias.data_ptr() != bias):
                return False
            weight += module.out_features * width * size
            bias += module.out_features * size if bias else 0
        return True

    def multiply(self, x: Tensor) -> Tensor:
        """The joint product [..., sum R_i] of x [..., C]."""
        if self.packed is not None:
            arguments = (self.packed, self.bias, "none", [], "")  # no fused activation
            return torch.ops.mkldnn._linear_pointwise(x, *arguments)
        if self.weight.dtype in HALVES:
            return linear_dense(x, self.weight, self.bias)
        return linear(x, self.weight, self.bias)

    def compute(self, index: int, x: Tensor) -> Tensor:
        """The columns of linear `index`, made together with the others' columns."""
        if x is not self.input or index not in self.outputs:
            if len(self.linears) == 1 and self.intact:
                return self.multiply(x)
            if not self.intact:
                module = self.linears[index]
                return type(module).forward(module, x)
            self.input = x
            self.outputs = dict(enumerate(self.multiply(x).split(self.sizes, dim=-1)))
        output = self.outputs.pop(index)
        if not self.outputs:
            self.input = None
        return output


class StackedPacked(StackedLinears):
    """The joint product of packed linears of one format.

    Their values lie in the joint ones; positions, a ninth of the bytes, are held twice.
    """

    def _stack(self) -> None:
        kind = type(self.linears[0])
        packed = kind.join([module.packed for module in self.linears])  # [sum R_i, C]
        if self.bias is not None:
            bias = torch.cat([module.bias.detach() for module in self.linears])
            for module, part in zip(self.linears, bias.split(self.sizes), strict=True):
                module.bias.data = part
            self.bias = nn.Parameter(bias, requires_grad=False)
        self.joint = kind(packed, self.bias)
        first = 0
        for module in self.linears:
            module.weight_values = kind.rows_of(self.joint.packed, first, module.out_features)
            first += module.out_features
        self.held = self._parts()

    def _parts(self) -> list[tuple]:
        return [(m.packed, None if m.bias is None else m.bias.data_ptr()) for m in self.linears]

    @property
    def intact(self) -> bool:
        """The linears' weights and biases are those that were joined."""
        parts = zip(self.held, self._parts(), strict=True)
        return all(packed is held[0] and bias == held[1] for held, (packed, bias) in parts)

    def multiply(self, x: Tensor) -> Tensor:
        """The joint product [..., sum R_i] of x [..., C]."""
        return self.joint(x)


class StackedForward:
    """The forward of one of the stacked linears."""

    def __init__(self, stacked: StackedLinears, index: int) -> None:
        self.stacked, self.index = stacked, index

    def __call__(self, x: Tensor) -> Tensor:
        """The product [..., R] of x [..., C]."""
        return self.stacked.compute(self.index, x)


def stack(model: PreTrainedModel) -> list[StackedLinears]:
    """Let sibling linears of `model` compute together, the others through the same forward."""
    found: list[StackedLinears] = []
    taken: set[nn.Module] = set()
    for module in model.modules():
        for names in SIBLINGS:
            linears = [getattr(module, name, None) for name in names]
            if _stackable(linears):
                found.append(StackedLinears(linears))
                taken.update(linears)
            elif _stackable_packed(linears):
                found.append(StackedPacked(linears))
    singles = [m for m in model.modules() if type(m) in DENSE and m not in taken]
    found += [StackedLinears([module]) for module in singles]
    for stacked in found:
        for index, module in enumerate(stacked.linears):
            module.forward = StackedForward(stacked, index)
    return found


def _stackable(linears: list[nn.Module | None]) -> bool:
    if not all(type(module) in DENSE for module in linears):
        return False
    kinds = {(x.in_features, x.weight.dtype, x.weight.device, x.bias is None) for x in linears}
    return len(kinds) == 1


def _stackable_packed(linears: list[nn.Module | None]) -> bool:
    kind = type(linears[0])
    if kind not in LINEARS.values() or any(type(m) is not kind for m in linears):
        return False
    kinds = {(m.in_features, m.weight_values.dtype, m.weight_values.device) for m in linears}
    bitmaps = kind is LinearBitmap
    padded = any(not bitmaps and m.out_features != len(m.weight_values) for m in linears)
    return len(kinds) == 1 and len({m.bias is None for m in linears}) == 1 and not padded


class PackedWeights:
    """Copies of a model's weights in oneDNN's layout, used inside `in_use`; float32 on a CPU alone.

    They are made when first used and freed with this object. The weights must not change meanwhile.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        forwards = (vars(module).get("forward") for module in model.modules())
        stacks = {f.stacked: None for f in forwards if isinstance(f, StackedForward)}
        self.stacks = [stacked for stacked in stacks if _packable(stacked.weight)]
        self.weights: list[Tensor] = []

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Multiply with the packed weights for the length of a `with` block."""
        if not self.weights:
            pack = torch.ops.mkldnn._reorder_linear_weight
            self.weights = [pack(stacked.weight.detach(), PACKED_ROWS) for stacked in self.stacks]
        try:
            for stacked, weight in zip(self.stacks, self.weights, strict=True):
                stacked.packed = weight
            yield
        finally:
            for stacked in self.stacks:
                stacked.packed = None


def _packable(weight: Tensor | None) -> bool:
    if weight is None:
        return False
    available = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    ops = torch.ops.mkldnn
    named = hasattr(ops, "_reorder_linear_weight") and hasattr(ops, "_linear_pointwise")
    return available and named and weight.device.type == "cpu" and weight.dtype == torch.float32
