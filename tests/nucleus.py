"""Draws from a nucleus judged in float64; used by the tests of nucleus_sample."""

import pytest
import torch
from numeric import native
from torch import Tensor
from triton_interpreter import DEVICE, INTERPRETED, needs_triton

from rac_kernels import nucleus_sample

on_device = [needs_triton, pytest.mark.gpu] if DEVICE == "cuda" else needs_triton
# impl and the device it is tested on.
implementation = pytest.mark.parametrize(
    ("impl", "device"),
    [
        ("reference", "cpu"),
        pytest.param("native", "cpu", marks=native),
        pytest.param("triton", DEVICE, marks=on_device),
    ],
)


def rows(impl: str, wanted: int) -> int:
    """Fewer where Triton's interpreter runs them: 0.1 seconds a row."""
    return min(wanted, 2) if impl == "triton" and INTERPRETED else wanted


def random_logits(batch, vocabulary, spread=3.0, seed=0) -> Tensor:
    return spread * torch.randn(batch, vocabulary, generator=torch.Generator().manual_seed(seed))


def grid(size: int) -> Tensor:
    """The middles of `size` equal parts of [0, 1)."""
    return (torch.arange(size) + 0.5) / size


class Truth:
    """Weights, nucleus and cumulative sums of rows in float64; the order is that of a sort."""

    def __init__(self, logits: Tensor, temperature: float, top_p: float) -> None:
        distance = logits.float() - logits.float().amax(-1, keepdim=True)
        self.weight = (distance.double() / temperature).exp()
        self.weight[distance.double() / temperature < -87] = 0
        self.total = self.weight.sum(-1, keepdim=True)
        order = distance.sort(dim=-1, descending=True, stable=True).indices
        ordered = self.weight.gather(-1, order)
        before = torch.empty_like(ordered).scatter_(-1, order, ordered.cumsum(-1) - ordered)
        self.before = before / self.total  # share of the ids that rank higher
        self.top_p = top_p

    def nucleus(self, slack: float = 0.0) -> Tensor:
        reached = self.before >= self.top_p * (1 + slack)
        return (self.weight > 0) & (~reached if self.top_p < 1 else True)

    def probabilities(self) -> Tensor:
        kept = self.weight * self.nucleus()
        return kept / kept.sum(-1, keepdim=True)

    def assert_allows(self, ids: Tensor, uniform: Tensor, slack: float = 1e-5) -> None:
        """Every id is in the nucleus of a top_p within `slack`, and the one that uniform meets."""
        device = self.weight.device
        ids, uniform = ids.to(device)[:, None], uniform.to(device).double()[:, None]
        assert ids.dtype == torch.long and bool(((ids >= 0) & (ids < self.weight.shape[1])).all())
        assert bool(self.nucleus(slack).gather(-1, ids).all()), "outside of the nucleus"
        probabilities = self.probabilities()
        unsure = self.weight * (self.nucleus(slack) != self.nucleus(-slack)) / self.total
        slack = slack + unsure.sum(-1, keepdim=True) / self.top_p
        end = probabilities.cumsum(-1).gather(-1, ids)
        start = end - probabilities.gather(-1, ids)
        assert bool((start - slack <= uniform).all() and (uniform <= end + slack).all())


def check(impl, device, logits, *, temperature=1.0, top_p=1.0, uniform=None, slack=1e-5):
    if uniform is None:
        uniform = torch.rand(len(logits), generator=torch.Generator().manual_seed(9))
    shape = {"temperature": temperature, "top_p": top_p}
    ids = nucleus_sample(logits.to(device), uniform.to(device), impl=impl, **shape)
    assert ids.device.type == torch.device(device).type
    Truth(logits, temperature, top_p).assert_allows(ids, uniform, slack)
    return ids.cpu()
