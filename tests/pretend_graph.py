"""CUDA graphs where a CPU passes for a GPU: calls noted in a capture, made again in a replay."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

REFUSED = "operation not permitted when stream is capturing: "


class Graph:
    """Stands for torch.cuda.CUDAGraph."""

    capturing: "Graph | None" = None

    def __init__(self, *_: object, **__: object) -> None:
        self.calls: list[tuple[Callable[[], Any], list[torch.Tensor]]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def keep(self, tensors: list[torch.Tensor]) -> None:
        """Remember what the capture is about to overwrite: nothing runs while it is captured."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))

    def restore(self) -> None:
        """Undo what was run to capture it."""
        for storage, before in self.before.values():
            storage.copy_(before)
        self.before.clear()

    def replay(self) -> None:
        """Call everything again, into the memory of the first time."""
        with torch.inference_mode(), torch._C.DisableTorchFunction():
            for call, results in self.calls:
                for old, new in zip(results, tensors(call()), strict=True):
                    there, fresh = old.untyped_storage(), new.untyped_storage()
                    if there.data_ptr() != fresh.data_ptr():
                        there.copy_(fresh)  # of the storage: a result may be expanded

    def reset(self) -> None:
        """Forget."""
        self.calls.clear()


def tensors(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


class _Recorder(TorchDispatchMode):
    """Notes what the operators do during a capture."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero"):
            raise RuntimeError(REFUSED + name)
        call = functools.partial(function, *args, **kwargs or {})
        written = [
            t
            for argument, value in zip(function._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
            for t in tensors(value)
        ]
        with torch._C.DisableTorchFunction():
            Graph.capturing.keep(written)
            result = call()
        Graph.capturing.calls.append((call, tensors(result)))
        return result


@contextlib.contextmanager
def capture(graph: Graph, *_: object, **__: object) -> Iterator[None]:
    """Stands for torch.cuda.graph."""
    Graph.capturing = graph
    try:
        with _Recorder():
            yield
    finally:
        Graph.capturing = None
        with plain():
            graph.restore()


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Nothing is pretended."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


def kernel(launch: Callable[[], Any], what: object = None, given: Any = ()) -> None:
    """Run a kernel that operators do not see, and note it during a capture.

    `what` tells the kernel from others, `given` are its arguments.
    """
    if Graph.capturing is not None and what is not None and what not in kernel.launched:
        raise RuntimeError(f"{REFUSED}the first launch of {getattr(what, '__name__', what)}")
    kernel.launched.add(what)

    def run() -> None:
        with plain():
            launch()

    if Graph.capturing is not None:
        with plain():
            Graph.capturing.keep(tensors(given))
    run()
    if Graph.capturing is not None:
        Graph.capturing.calls.append((run, []))


kernel.launched = set()
