"""Colours, markers and sizes that all figures share; matplotlib by its object API alone."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every kind of colour vision; markers differ too
COLOURS = {"text": "#E69F00", "prompt": "#CC79A7", "rac": "#0072B2", "off-policy": "#009E73"}
MARKERS = {"text": "s", "prompt": "^", "rac": "o", "off-policy": "D"}
STAGES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
DENSE = "#444444"
OTHER = "#56B4E9"
DPI = 200
SETTINGS = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#222222",
    "axes.titlesize": 10,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Image:
    """A finished PNG: its file name, its bytes, what it shows (alt) and the text under it."""

    name: str
    png: bytes
    alt: str
    caption: str = ""
    wide: bool = False

    @property
    def uri(self) -> str:
        """The image as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def colour(calibration: str) -> str:
    """The calibration's colour in every figure."""
    return COLOURS.get(calibration, OTHER)


def marker(calibration: str) -> str:
    """The calibration's marker in every figure."""
    return MARKERS.get(calibration, "v")


def subplots(width: float, height: float, rows: int = 1, **keywords: object) -> tuple:
    """A figure of `width` x `height` inches and its axes, with grid lines behind the data."""
    with rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, 1, squeeze=False, **keywords)[:, 0]
    for axis in axes:
        axis.grid(axis="y")
        axis.set_axisbelow(True)
    return figure, axes


def legend_above(axis: Axes, columns: int) -> None:
    """Put the legend in one line above the axes, away from the data."""
    with rc_context(SETTINGS):
        axis.legend(
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=columns,
            borderaxespad=0.2,
            handletextpad=0.5,
            columnspacing=1.2,
        )


def to_png(figure: Figure) -> bytes:
    """Render `figure`."""
    buffer = io.BytesIO()
    with rc_context(SETTINGS):
        figure.savefig(
            buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None}
        )
    return buffer.getvalue()


def layer_ticks(axis: Axes, layers: Sequence[int]) -> None:
    """Mark where each decoder layer begins along linears in network order; label a few."""
    starts = [i for i, layer in enumerate(layers) if i == 0 or layers[i - 1] != layer]
    every = max(1, -(-len(starts) // 8))
    for start in starts[1:] if every == 1 else []:
        axis.axvline(start - 0.5, color="#E4E4E4", linewidth=0.8, zorder=0)
    shown = starts[::every]
    ends = [*starts[1:], len(layers)]
    middles = [(start + ends[starts.index(start)] - 1) / 2 for start in shown]
    axis.set_xticks(middles, [str(layers[start]) for start in shown])
    axis.set_xlim(-0.7, len(layers) - 0.3)
