"""What `rac pack` did, in numbers."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class PackSummary:
    """What was packed and what was not.

    Attributes:
        packed: format -> number of linears, bytes of their weights before and after.
        left: linears that stayed dense -> why.
        before: bytes of all tensors before.
        after: bytes of all tensors after.
    """

    packed: dict[str, list[int]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    before: int = 0
    after: int = 0

    def count(self, kind: str, before: int, after: int) -> None:
        """One more linear in format `kind`."""
        row = self.packed.setdefault(kind, [0, 0, 0])
        for index, number in enumerate((1, before, after)):
            row[index] += number

    def lines(self) -> list[str]:
        """A table for the terminal."""
        rows = [(f"{n} linears as {kind}", b, a) for kind, (n, b, a) in sorted(self.packed.items())]
        rows.append(("all tensors", self.before, self.after))
        width = max(len(name) for name, _, _ in rows)
        lines = [
            f"{name:<{width}}  {before / 1e6:,.2f} -> {after / 1e6:,.2f} MB  {after / before:.4f}x"
            for name, before, after in rows
        ]
        for reason, count in Counter(self.left.values()).items():
            first = next(name for name, why in self.left.items() if why == reason)
            lines.append(f"{count} linears left dense: {reason} ({first}, ...)")
        return lines
