"""The benchmark of the sparse linears counts its bytes and times only what is right."""

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import bench_linear
from benchmarks.sparse_tables import linear_table

OPTIONS = SimpleNamespace(device="cpu", repeats=1)
MACHINE = {"cpu": "Some Processor x 4", "instruction_set": "amx", "threads": 2, "gpu": None}


@pytest.fixture(scope="module")
def rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_linear, "CACHE_BYTES", {"cpu": 1e5})
        patch.setattr(bench_linear, "SECONDS", 0.01)
        return list(bench_linear.bench((96, 64), [1, 40], OPTIONS, {"readable_gbps": 20.0}))


def test_rows_count_what_is_packed(rows):
    assert [(row["op"], row["T"]) for row in rows] == [
        ("linear_2to4", 1),
        ("linear_2to4_fp8", 1),
        ("linear_bitmap", 1),
        ("linear_dense", 1),
        ("linear_2to4", 40),
        ("linear_2to4_fp8", 40),
        ("linear_bitmap", 40),
        ("linear_dense", 40),
    ]
    for row in rows:
        if row["op"] == "linear_2to4":
            assert row["bytes"] == 96 * 64 * 9 // 8 + 2 * row["T"] * (96 + 64)
        if row["op"] == "linear_dense":
            assert row["bytes"] == 96 * 64 * 2 + 2 * row["T"] * (96 + 64)
        if row["op"] == "linear_2to4_fp8":  # scales too
            assert row["bytes"] == 96 * 64 * 5 // 8 + 4 * 96 + 2 * row["T"] * (96 + 64)
        assert row["gbps"] == pytest.approx(row["bytes"] / row["time_ms"] / 1e6)
        assert row["of_readable"] == pytest.approx(row["gbps"] / 20)
        dense = [row[f"dense_{kind}_ms"] for kind in ("bfloat16", "float32")]
        assert row["baseline_ms"] == min(time for time in dense if time is not None)
        assert row["speedup"] == pytest.approx(row["baseline_ms"] / row["time_ms"])
        assert row["flops"] == row["T"] * 96 * 64


def test_a_wrong_product_is_never_timed():
    truths = {"linear_2to4": torch.ones(2, 3)}
    with pytest.raises(AssertionError, match="dense_bfloat16 linear is off by 1.0"):
        bench_linear.check({("dense_bfloat16", "linear"): [lambda: torch.zeros(2, 3)]}, truths)


def test_table(rows, tmp_path):
    lines = [json.dumps(row | MACHINE) for row in [*rows, *rows]]
    (tmp_path / "linear.jsonl").write_text("\n".join(lines))
    table = linear_table(tmp_path).splitlines()
    assert len(table) == 2 + len(rows)
    assert table[2].startswith("| Some (AMX), 2 threads | `linear_2to4` | native | 96 x 64 | 1 |")


def test_table_of_a_row_at_half_the_readable_bandwidth(rows, tmp_path):
    row = rows[0] | {"time_ms": 2.0, "dense_bfloat16_ms": 3.0, "of_readable": 0.5}
    (tmp_path / "linear.jsonl").write_text(json.dumps(row | MACHINE))
    cells = linear_table(tmp_path).splitlines()[2].split(" | ")
    assert cells[-4:-2] == ["1.50x", "3.00x"]
