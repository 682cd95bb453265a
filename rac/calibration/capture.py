"""Hessians that grow while the model runs: hooks on linear inputs, real tokens only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rac.calibration.groups import Group, check_finite, input_hooks
from rac.models import linears
from rac_kernels import hessian_accumulate_

STAGED_TOKENS = 2048  # rows kept before a rank-k update; below ~730 it is bound by reading H


class HessianCollector:
    """Accumulates `H = sum_t x_t x_t^T` (lower triangle, float32) for every group.

    Use it as the engines' observer inside `attached`: `observe` says which rows of the next forward
    are real tokens; the hooks stage those rows and add them to H in large rank-k updates.
    """

    def __init__(self, model: PreTrainedModel, groups: list[Group]) -> None:
        self.model, self.groups = model, groups
        self.device = next(model.parameters()).device
        self.hessians = {
            g.name: torch.zeros(g.in_features, g.in_features, device=self.device) for g in groups
        }
        self.tokens = {"prompt": 0, "decode": 0}
        self._staged: dict[str, list[Tensor]] = {g.name: [] for g in groups}
        self._staged_tokens = 0
        self._real: Tensor | None = None

    @contextmanager
    def attached(self) -> Iterator["HessianCollector"]:
        """Hook the model for the length of a `with` block."""
        modules = linears(self.model)
        hooked = {group.name: modules[group.name] for group in self.groups}
        with input_hooks(hooked, self._capture):
            yield self

    def observe(self, real: Tensor, phase: str) -> None:
        """`real` [B, T] bool marks the real tokens of the forward that follows."""
        if self._staged_tokens >= STAGED_TOKENS:
            self.flush()
        count = int(real.sum())
        self._real = None if count == real.numel() else real
        self._staged_tokens += count
        self.tokens[phase] += count

    def _capture(self, name: str, x: Tensor) -> None:
        rows = x.flatten(0, -2)  # [B * T, C]; OPT flattens before its MLP
        rows = rows if self._real is None else rows[self._real.flatten()]
        if rows.shape[0]:
            self._staged[name].append(rows.detach())
        if self._staged_tokens >= STAGED_TOKENS:  # now, so that a large batch is never staged whole
            self._add_staged(name)

    def _add_staged(self, name: str) -> None:
        parts = self._staged[name]
        if parts:
            rows = parts[0] if len(parts) == 1 else torch.cat(parts)
            parts.clear()
            hessian_accumulate_(self.hessians[name], rows)
            check_finite(name, self.hessians[name].diagonal())

    def flush(self) -> None:
        """Add the staged rows to the Hessians.

        Raises:
            UserError: a layer's activations hold NaN or Inf.
        """
        for name in self._staged:
            self._add_staged(name)
        self._staged_tokens = 0

    def state_dict(self) -> dict[str, Any]:
        """Everything, staged rows too, so that a restored collector adds up to the same bits."""
        return {
            "hessians": self.hessians,
            "tokens": dict(self.tokens),
            "staged": {n: torch.cat(parts) for n, parts in self._staged.items() if parts},
            "staged_tokens": self._staged_tokens,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, hessian in state["hessians"].items():
            self.hessians[name].copy_(hessian)
        self.tokens = dict(state["tokens"])
        self._staged_tokens = state["staged_tokens"]
        for name, rows in state["staged"].items():
            self._staged[name] = [rows.to(self.device)]
