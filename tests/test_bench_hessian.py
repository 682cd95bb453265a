"""The rank-k benchmark times only what is right, and its rows make a roofline plot."""

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import bench_hessian, roofline
from benchmarks.common import copy_gbps, matmul_gflops
from benchmarks.rows import machine_of

OPTIONS = SimpleNamespace(device="cpu", repeats=1, all=False, packed=True)
CEILINGS = {torch.float32: 100.0, "copy": 20.0}


@pytest.fixture(scope="module")
def rows():
    return bench_hessian.bench(160, 64, torch.bfloat16, OPTIONS, CEILINGS)


def test_rows_count_what_a_triangle_needs(rows):
    assert rows[0]["impl"] == "reference" and {row["D"] for row in rows} == {160}
    for row in rows:
        assert row["flops"] == 64 * 160 * 161  # a multiply and an add for each of 160 * 161 / 2
        assert row["bytes"] == 64 * 160 * 2 + 2 * 4 * 160 * 161 // 2
        assert row["gflops"] == pytest.approx(row["flops"] / row["time_ms"] / 1e6)
        assert row["gbps"] == pytest.approx(row["bytes"] / row["time_ms"] / 1e6)
        assert row["speedup"] == pytest.approx(row["baseline_ms"] / row["time_ms"])
        assert row["floor_ms"] == pytest.approx(max(row["flops"] / 1e8, row["bytes"] / 2e7))
        assert row["packed_ms"] > 0


def test_a_wrong_result_is_never_timed():
    def forgets_a_tile_(hessian, x):
        bench_hessian.full_(hessian, x)
        hessian[128:, :32] = 0

    with pytest.raises(AssertionError, match="wrong is off by"):
        bench_hessian.check({"wrong": forgets_a_tile_}, torch.randn(64, 160))


def test_ceilings_are_measured():
    assert matmul_gflops(256) > 0 and matmul_gflops(64, dtype=torch.bfloat16) > 0
    assert 0.1 < copy_gbps() < 10_000


def test_roofline(rows, tmp_path):
    machine = {"gpu": None, "cpu": "Some x 2", "threads": 1}
    old = {"op": "sparsegpt", "device": "cpu", "time_ms": 3.0}  # counts no bytes
    lines = [row | machine for row in [*rows, *rows, old]]
    (tmp_path / "hessian.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = roofline.measured(tmp_path)
    assert [row["impl"] for row in found] == [row["impl"] for row in rows]
    assert {machine_of(row) for row in found} == {"Some CPU, 1 threads"}
    assert roofline.draw("A CPU", found).startswith(b"\x89PNG")


def test_roofs_are_the_machines_ceilings_where_they_were_measured(rows, tmp_path):
    machine = {"gpu": None, "cpu": "Some x 2", "threads": 1}
    lines = [json.dumps(row | machine) for row in rows]
    (tmp_path / "hessian.jsonl").write_text("\n".join(lines))
    assert {row["copy_gbps"] for row in roofline.measured(tmp_path)} == {20.0}
    measured = [
        {"what": "copy", "gbps": 33.0},
        {"what": "matmul", "dtype": "float32", "gflops": 99},
    ]
    fixed = machine | {"op": "ceiling", "device": "cpu"}
    ceilings = [json.dumps(row | fixed) for row in [{"what": "copy", "gbps": 1.0}, *measured]]
    (tmp_path / "ceilings.jsonl").write_text("\n".join(ceilings))
    found = roofline.measured(tmp_path)
    assert {(row["copy_gbps"], row["matmul_gflops"]) for row in found} == {(33.0, 99)}
