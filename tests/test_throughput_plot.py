"""The plot of whole-model decoding shows the rows' own numbers, and only those."""

import json

import pytest

from benchmarks import throughput_plot
from benchmarks.throughput_plot import draw, measured

MACHINE = {"device": "cpu", "gpu": None, "cpu": "Some x 2", "threads": 2}


def row(batch, layout, format, torch, dense, packed, **more):
    key = {"model": "a model", "layers": 3, "B": batch, "layout": layout, "format": format}
    names = ("torch_bf16", "dense_bf16", "packed_bf16")
    rates = zip(names, (torch, dense, packed), strict=True)
    return MACHINE | key | {f"{name}_tokens_per_s": rate for name, rate in rates} | more


ROWS = [
    row(4, "all", "2:4", 40, 50, 100),
    row(1, "all", "2:4", 9, 9, 9),  # measured again below
    row(1, "first third", "bitmap", 4, 6, 7),
    row(1, "all", "2:4-fp8", 5, 7, 8, packed_fp32_tokens_per_s=11),
    row(1, "all", "2:4", 3, 5, 10, packed_fp32_tokens_per_s=2),
]


@pytest.fixture
def figure(tmp_path, monkeypatch):
    """The plot of ROWS before it becomes a picture."""
    (tmp_path / "throughput.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    monkeypatch.setattr(throughput_plot, "to_png", lambda figure: figure)
    return draw("a machine", measured(tmp_path))


def test_bars_are_the_newest_rows(figure):
    one, four = figure.axes
    assert one.get_title("left") == "a model, 3 layers, batch 1"
    bars = [
        {round(bar.get_center()[0], 6): bar.get_height() for bar in a.patches} for a in (one, four)
    ]
    width = throughput_plot.WIDTH
    # dense at 0: the medians of 3, 4, 5 and of 5, 6, 7; first third at 1, all at 2
    expected = {-width: 4, 0: 6, 1 + width: 7, 2 - width: 10, 2: 11}
    assert bars[0] == expected
    assert sorted(bars[1].values()) == [40, 50, 100]


def test_lines_go_from_the_slowest_dense_to_the_fastest(figure):
    lines = [tuple(line.get_ydata()) for line in figure.axes[0].lines]
    assert lines == [(3, 5), (5, 7)]


def test_the_legend_names_what_was_timed(figure):
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["torch, dense bf16", "dense bf16", "2:4", "2:4-fp8", "bitmap"]


def test_a_picture_a_device(tmp_path, monkeypatch):
    (tmp_path / "throughput.jsonl").write_text(
        "".join(json.dumps(r | {"threads": n}) + "\n" for n in (1, 2) for r in ROWS[:1])
    )
    monkeypatch.setattr("sys.argv", ["throughput_plot", "--results", str(tmp_path)])
    throughput_plot.main()
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == [f"throughput_some_cpu_{n}_threads.png" for n in (1, 2)]
    assert (tmp_path / pictures[0]).read_bytes().startswith(b"\x89PNG")
