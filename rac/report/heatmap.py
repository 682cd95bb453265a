"""Figure 2: which pruned model stays closer to the dense one, token by token."""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from rac.report.reconstruction import Comparison
from rac.report.style import DENSE, subplots, to_png

# red (a closer) - grey (equal) - blue (b closer): the paper's colours, safe for colour-blind
COLOUR_MAP = LinearSegmentedColormap.from_list(
    "ratio", ["#8C1A11", "#D6604D", "#F2B59B", "#E6E6E6", "#9EC6E0", "#3C87BE", "#12396B"]
)
MOST_COLUMNS = 1200


def draw_heatmap(comparison: Comparison) -> bytes:
    """Draw r_t = e_t(a) / e_t(b) as a PNG: a row a problem, aligned at its first decoded token."""
    grid, before = aligned(comparison)
    picture, left, right = _thin(grid, before)
    rows, bound = len(grid), color_bound(grid)
    figure, (axis,) = subplots(10.6, 1.5 + max(1.6, 0.145 * rows))
    axis.grid(visible=False)
    scale = Normalize(-bound, bound)
    axis.imshow(
        picture,
        cmap=COLOUR_MAP,
        norm=scale,
        aspect="auto",
        interpolation="nearest",
        extent=(-left - 0.5, right - 0.5, rows + 0.5, 0.5),
    )
    axis.axvline(-0.5, color="black", linestyle=(0, (4, 2)), linewidth=1.4)
    for text, side, x in (("prompt", "right", -6), ("decoded by the dense model", "left", 6)):
        axis.annotate(
            text, (-0.5, 1), (x, 4), ha=side, xycoords=("data", "axes fraction"),
            textcoords="offset points", color=DENSE, fontsize=9,
        )  # fmt: skip
    axis.set_xlabel("Token, counted from the first decoded one")
    axis.set_ylabel("Held-out problem")
    bar = figure.colorbar(ScalarMappable(scale, COLOUR_MAP), ax=axis, pad=0.01, aspect=22)
    ticks = np.arange(-np.floor(bound), np.floor(bound) + 1, max(1, np.floor(bound) // 2))
    bar.set_ticks(ticks, labels=[f"{2.0**t:g}" if t >= 0 else f"1/{2.0**-t:g}" for t in ticks])
    bar.set_label("r = e({}) / e({})".format(*comparison.names))
    bar.outline.set_visible(False)
    return to_png(figure)


def aligned(comparison: Comparison) -> tuple[np.ndarray, int]:
    """log2 r_t as float32 [N, columns], NaN where a row has no token; and the columns of prompt.

    Every row's first decoded token is in the same column.
    """
    ratios = comparison.log2_ratios()
    before = max(comparison.prompt_lengths)
    after = max(
        len(row) - prompt for row, prompt in zip(ratios, comparison.prompt_lengths, strict=True)
    )
    grid = np.full((len(ratios), before + after), np.nan, dtype=np.float32)
    for index, (row, prompt) in enumerate(zip(ratios, comparison.prompt_lengths, strict=True)):
        grid[index, before - prompt : before - prompt + len(row)] = row
    return grid, before


def color_bound(grid: np.ndarray) -> float:
    """Half the width of the colour scale in log2: the 98th percentile of |log2 r|, at least 1."""
    return max(1.0, float(np.percentile(np.abs(grid[np.isfinite(grid)]), 98)))


def _thin(grid: np.ndarray, before: int) -> tuple[np.ma.MaskedArray, int, int]:
    """Average neighbouring columns where there are more than the picture has pixels for.

    Returns the picture and how many tokens it spans before and after the boundary; no average
    mixes prompt and decoded tokens.
    """
    step = -(-grid.shape[1] // MOST_COLUMNS)
    left, right = -before % step, (before - grid.shape[1]) % step
    padded = np.pad(grid, ((0, 0), (left, right)), constant_values=np.nan)
    blocks = np.ma.masked_invalid(padded.reshape(len(grid), -1, step)).mean(axis=2)
    return blocks, before + left, grid.shape[1] - before + right
