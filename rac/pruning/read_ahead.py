"""The next Hessian is read while layers are pruned with the one before."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from rac.progress import Stages


def read_ahead(read: Callable[[str], Tensor], names: list[str], stages: Stages) -> Iterator[Tensor]:
    """Yield `read(name)` of every name; one thread reads one ahead, so that two are in memory.

    What a read raises surfaces where its Hessian is asked for. The seconds spent waiting are those
    of "read Hessians". Close the iterator where it is left early: its thread ends then.
    """
    with ThreadPoolExecutor(1, "rac-reader") as pool:
        pending = [pool.submit(read, name) for name in names[:1]]
        for following in range(1, len(names) + 1):
            with stages.apart("read Hessians"):
                hessian = pending.pop().result()
            pending += [pool.submit(read, name) for name in names[following : following + 1]]
            yield hessian
            del hessian  # it is the caller's now
