"""Notices in every decode step whether a module is still what a fused forward was built for."""

from torch import Tensor, nn


class Watch:
    """Modules, their forwards and the tensors that they hold, as they are when this is made.

    A step asks for all of a model's layers, so what there is to compare is found once; comparing
    takes about 3 us a layer. Values of tensors may change: kernels read them where they lie.
    """

    def __init__(self, module: nn.Module) -> None:
        self.held: list[tuple[dict, str, object]] = []
        self.tensors: list[tuple[Tensor, int]] = []
        for inner in module.modules():
            for named in (inner._modules, inner._parameters, inner._buffers):
                self.held += [(named, name, value) for name, value in named.items()]
            own = vars(inner)
            self.held.append((own, "forward", own.get("forward")))
            if "_packed" in own:
                self.held.append((own, "_packed", own["_packed"]))
            tensors = [x for x in inner._parameters.values() if x is not None]
            self.tensors += [(x, x.data_ptr()) for x in tensors]

    @property
    def unchanged(self) -> bool:
        """Nothing has been replaced, and no parameter has other memory."""
        for named, name, value in self.held:
            if named.get(name) is not value:
                return False
        return all(tensor.data_ptr() == address for tensor, address in self.tensors)


def hooks(module: nn.Module) -> list[dict]:
    """Where the forward hooks of `module` and of all modules inside are, or will be."""
    return [h for m in module.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]
