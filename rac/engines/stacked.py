"""Linears that read the same input run as one matrix product, their weights stacked by rows.

A decode step multiplies few rows with many small matrices: one product of q, k and v takes about
two thirds of the time of three. The modules stay, with their hooks; only what their forwards
compute is shared. Their weights become views of the stacked one, so nothing is held twice.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class StackedLinears:
    """The joint product of some linears [R_i, C]; each is handed its own columns of it."""

    def __init__(self, linears: list[nn.Linear]) -> None:
        self.linears = linears
        self.sizes = [linear.out_features for linear in linears]
        with torch.no_grad():
            self.weight = torch.cat([linear.weight for linear in linears])  # [sum R_i, C]
            biases = [linear.bias for linear in linears]
            self.bias = None if biases[0] is None else torch.cat(biases)
        for linear, weight in zip(linears, self.weight.split(self.sizes), strict=True):
            linear.weight.data = weight
        if self.bias is not None:
            for linear, bias in zip(linears, self.bias.split(self.sizes), strict=True):
                linear.bias.data = bias
        self.input: Tensor | None = None
        self.outputs: dict[int, Tensor] = {}

    @property
    def intact(self) -> bool:
        """The linears' weights still lie in the stacked one; a conversion of the model ends that."""
        size = self.weight.element_size() * self.weight.shape[1]
        address = self.weight.data_ptr()
        for linear in self.linears:
            if linear.weight.data_ptr() != address:
                return False
            address += size * linear.out_features
        return True

    def forward_of(self, index: int) -> Callable[[Tensor], Tensor]:
        """What linear `index` computes: its columns, made together with the others' columns."""

        def forward(x: Tensor) -> Tensor:
            if x is not self.input or index not in self.outputs:
                if not self.intact:
                    linear = self.linears[index]
                    return nn.functional.linear(x, linear.weight, linear.bias)
                joint = nn.functional.linear(x, self.weight, self.bias)
                self.input = x
                self.outputs = dict(enumerate(joint.split(self.sizes, dim=-1)))
            output = self.outputs.pop(index)
            if not self.outputs:
                self.input = None
            return output

        return forward


def stack(model: PreTrainedModel) -> int:
    """Let sibling linears of `model` compute together; how many sets of them there are."""
    count = 0
    for module in model.modules():
        for names in SIBLINGS:
            linears = [getattr(module, name, None) for name in names]
            if _stackable(linears):
                stacked = StackedLinears(linears)
                for index, linear in enumerate(linears):
                    linear.forward = stacked.forward_of(index)
                count += 1
    return count


def _stackable(linears: list[nn.Module | None]) -> bool:
    if not all(type(linear) is nn.Linear for linear in linears):
        return False
    kinds = {(x.in_features, x.weight.dtype, x.weight.device, x.bias is None) for x in linears}
    return len(kinds) == 1
