"""Notices in every decode step whether a module is still what a fused forward was built for."""

from itertools import chain, repeat
from operator import eq, is_

from torch import Tensor, nn


class Watch:
    """Modules, their forwards and the tensors that they hold, as they are when this is made.

    A step asks for all of a model's layers, after its weights have driven all else out of the
    caches. So what is compared is found once, and the loops are the interpreter's own. Values of
    tensors may change: kernels read them where they lie. Packed weights are told by the one object
    that their buffers make.
    """

    def __init__(self, module: nn.Module) -> None:
        modules = list(module.modules())
        self.owners = [vars(each) for each in modules]
        self.forwards = [own.get("forward") for own in self.owners]
        self.packed = [own for own in self.owners if "_packed" in own]
        self.weights = [own["_packed"] for own in self.packed]
        named = (d for m in modules for d in (m._modules, m._parameters))
        self.named = [each for each in named if each]
        self.values = [value for each in self.named for value in each.values()]
        parameters = (p for each in modules for p in each._parameters.values())
        self.tensors = [parameter for parameter in parameters if parameter is not None]
        self.addresses = [tensor.data_ptr() for tensor in self.tensors]

    @property
    def unchanged(self) -> bool:
        """Nothing has been replaced, and no parameter has other memory."""
        return (
            sum(map(len, self.named)) == len(self.values)
            and all(map(is_, chain.from_iterable(map(dict.values, self.named)), self.values))
            and all(map(is_, map(dict.get, self.owners, repeat("forward")), self.forwards))
            and all(map(is_, map(dict.get, self.packed, repeat("_packed")), self.weights))
            and all(map(eq, map(Tensor.data_ptr, self.tensors), self.addresses))
        )


def hooks(module: nn.Module) -> list[dict]:
    """Where the forward hooks of `module` and of all modules inside are, or will be."""
    return [h for m in module.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]
