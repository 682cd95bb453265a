"""Which weights a pruner may remove: a share of them, or n of every m neighbours."""

import math
from dataclasses import dataclass
from numbers import Integral, Real


@dataclass(frozen=True)
class Pattern:
    """A sparsity pattern.

    Unstructured: ``sparsity`` is the share of weights pruned, 0..1, and ``n`` and ``m`` are None.
    n:m: ``n`` of every ``m`` neighbours along in_features are **pruned**; ``sparsity`` is n / m.

    Raises:
        TypeError: sparsity is no number, or n or m no integer.
        ValueError: sparsity outside 0..1, or not 0 <= n <= m with m >= 1.
    """

    sparsity: float
    n: int | None = None
    m: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that no weight matrix can satisfy."""
        if (self.n is None) != (self.m is None):
            raise ValueError(f"Pattern: n and m go together, got n={self.n}, m={self.m}")
        if self.m is not None:
            if not isinstance(self.n, Integral) or not isinstance(self.m, Integral):
                raise TypeError(f"Pattern: n and m must be integers, got {self.n!r}, {self.m!r}")
            if self.m < 1 or not 0 <= self.n <= self.m:
                raise ValueError(
                    "Pattern: of every m neighbours n are pruned, 0 <= n <= m and m >= 1, "
                    f"got {self.n}:{self.m}"
                )
        if not isinstance(self.sparsity, Real):
            hint = "; Pattern.parse reads text" if isinstance(self.sparsity, str) else ""
            raise TypeError(f"Pattern: sparsity must be a number, got {self.sparsity!r}{hint}")
        if not 0.0 <= self.sparsity <= 1.0 or math.isnan(self.sparsity):
            raise ValueError(f"Pattern: sparsity must be in 0..1, got {self.sparsity}")
        if self.m is not None and self.sparsity != self.n / self.m:
            raise ValueError(f"Pattern: {self} has sparsity {self.n / self.m}, got {self.sparsity}")

    @classmethod
    def parse(cls, text: "str | float | Pattern") -> "Pattern":
        """Read ``"0.5"`` (a share of all weights) or ``"2:4"`` (2 of every 4 pruned).

        Raises:
            ValueError: the text is neither, or its values are out of range.
        """
        if isinstance(text, cls):
            return text
        try:
            if isinstance(text, str) and ":" in text:
                n, m = (int(part) for part in text.split(":"))
                return cls(n / m if m else 0.0, n, m)
            sparsity = float(text)
        except (TypeError, ValueError) as error:
            if "Pattern:" in str(error):
                raise
            raise ValueError(
                f"Pattern: expected a sparsity such as '0.5' or an n:m such as '2:4', got {text!r}"
            ) from None
        return cls(sparsity)

    @property
    def structured(self) -> bool:
        """True for n:m."""
        return self.m is not None

    def count(self, numel: int) -> int:
        """How many of ``numel`` weights an unstructured pattern prunes: ``round(numel * s)``."""
        return round(numel * self.sparsity)

    def __str__(self) -> str:
        """``"0.5"`` or ``"2:4"``, which ``parse`` reads back."""
        if self.m is not None:
            return f"{self.n}:{self.m}"
        short = f"{self.sparsity:g}"
        return short if float(short) == self.sparsity else repr(self.sparsity)
