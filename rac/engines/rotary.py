"""Cosines and sines of decode steps, looked up."""

import torch
from torch import Tensor, nn

# Kinds of rotation whose angles depend on a token's position alone, as transformers names them.
STATIC = ("default", "linear", "llama3", "yarn")
ROWS = 256  # the least that is made at once
CHECKED = 8  # rows of what is made that are also asked for one by one


class RotaryTable:
    """What a rotary module gives for single tokens: made by it for many positions at once.

    The module itself is called where its angles depend on more than the position, where a hook
    looks at it, or where it gives other bits for many positions than for one.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.usable = getattr(module, "rope_type", None) in STATIC
        self.made_for: tuple | None = None
        self.frequencies: Tensor | None = None
        self.rows: tuple[Tensor, ...] = ()  # cosine and sine [positions, D]

    def __call__(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [B, D] in the dtype of x, for tokens at `positions`, int64 [B, 1]."""
        module = self.module
        if self.usable and not (module._forward_hooks or module._forward_pre_hooks):
            held = positions[:, 0].tolist()
            if min(held) >= 0 and self._reaches(x, max(held) + 1):
                cosine, sine = (rows.index_select(0, positions[:, 0]) for rows in self.rows)
                return cosine, sine
        cosine, sine = (rows[:, 0].expand(len(x), -1) for rows in module(x, positions))
        return cosine, sine

    def _reaches(self, x: Tensor, count: int) -> bool:
        """Whether there are rows for `count` positions, made now where there are not."""
        now = self.module.inv_freq
        same = self.made_for == (x.dtype, self.module.attention_scaling)
        if not same or not torch.equal(now, self.frequencies):
            self.made_for = (x.dtype, self.module.attention_scaling)
            self.frequencies, self.rows = now.clone(), ()
        if self.rows and len(self.rows[0]) >= count:
            return True
        positions = torch.arange(max(ROWS, 1 << (count - 1).bit_length()))
        made = tuple(rows[0] for rows in self.module(x[:1], positions[None]))
        some = positions[:: len(positions) // CHECKED, None]
        alone = self.module(x[:1].expand(len(some), -1, -1), some)
        pairs = zip(alone, made, strict=True)
        self.usable = all(torch.equal(a[:, 0], b[some[:, 0]]) for a, b in pairs)
        self.rows = made
        return self.usable
