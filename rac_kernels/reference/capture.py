"""Append the active rows of x to a staging ring."""

from torch import Tensor

from rac_kernels.capture import Ring


def capture_(x: Tensor, ring: Ring) -> None:
    """``rows[half, cursor + i] = (i-th active row of x [..., D])``, the cursor moved past them.

    Reads the cursor on the host, so it cannot be a node of a CUDA graph.
    """
    rows, state, active = ring
    x = x.detach().reshape(-1, x.shape[-1])  # [B, D]
    x = x if active is None else x[active]
    slots = rows.shape[1]
    cursor, half = state[:2].tolist()
    fit = min(x.shape[0], max(slots - cursor, 0))
    rows[half, cursor : cursor + fit] = x[:fit]
    state[0] += x.shape[0]
    state[3] += x.shape[0] - fit
