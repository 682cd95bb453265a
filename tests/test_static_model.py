"""The model of a kernel's floor: what it asks for, and that every lack of it is named."""

import dataclasses

import pytest
from aot import Case, Compiled

from benchmarks.static_model import BOUNDS, EXPLAINED, blocks_per_sm, model, unexplained

CODE = dict.fromkeys(("tensor_core", "copy_engine", "copy_16", "copy_8", "copy_4"), 0)
CODE |= dict.fromkeys(("load_16", "load_8", "load_4", "load_less", "local", "barriers"), 0)
UPDATE = Case("m:update_kernel", {}, {"BLOCK_I": 128, "BLOCK_K": 32}, 90, num_warps=8, num_stages=3)
PRODUCT = Compiled(
    registers=250, shared=90112, wgmma=True, instructions=CODE | {"tensor_core": 8, "copy_16": 8}
)
SCORES = Case("m:groups_kernel", {}, {}, 90, num_warps=4)
STREAM = Compiled(registers=32, instructions=CODE | {"load_16": 2})


def test_blocks_are_bound_by_registers_shared_memory_and_threads():
    assert blocks_per_sm(UPDATE, PRODUCT) == 1  # 256 threads x 256 registers is all there is
    light = dataclasses.replace(PRODUCT, registers=100)
    assert blocks_per_sm(UPDATE, light) == 2  # 104 x 256 x 2; 91 KB twice of 228
    assert blocks_per_sm(UPDATE, dataclasses.replace(light, shared=120_000)) == 1
    assert blocks_per_sm(SCORES, STREAM) == 16  # 2048 threads


def test_a_step_hides_what_its_products_take():
    row = model(UPDATE, PRODUCT)
    # 6 products of 2 x 128 x 128 x 32 flops at 989e12 / 132 a second, two steps ahead
    assert row["hidden_us"] == pytest.approx(2 * 12 * 128 * 128 * 32 * 132 / 989e12 * 1e6)
    assert row["misses"] == []
    assert model(dataclasses.replace(UPDATE, num_stages=1), PRODUCT)["misses"] == ["latency hidden"]


def test_bytes_under_way_are_those_of_all_threads():
    row = model(SCORES, STREAM)
    assert row["under_way"] == 16 * 128 * 32 and row["under_way_wanted"] == 29091
    assert row["misses"] == []
    crowded = dataclasses.replace(STREAM, registers=255)
    assert model(SCORES, crowded)["misses"] == ["bytes under way"]


@pytest.mark.parametrize(
    ("case", "result", "changed", "miss"),
    [
        (UPDATE, PRODUCT, {"tensor_core": 0}, "tensor cores"),
        (UPDATE, PRODUCT, {"copy_16": 0, "copy_4": 32}, "16-byte loads"),
        (UPDATE, PRODUCT, {"local": 1}, "local memory"),
        (SCORES, STREAM, {"load_16": 0, "load_4": 8}, "16-byte loads"),
    ],
)
def test_what_is_missing_is_named(case, result, changed, miss):
    worse = dataclasses.replace(result, instructions=result.instructions | changed)
    assert model(case, worse)["misses"] == [miss]
    spilled = dataclasses.replace(result, spills=4)
    assert model(case, spilled)["misses"] == ["local memory"]


def test_a_reason_stands_for_its_cases_alone():
    row = {"kernel": "hessian_kernel", "misses": ["latency hidden"]}
    assert not unexplained(row | {"case": "odd-float32"})
    assert unexplained(row | {"case": "wide"}) == ["latency hidden"]
    assert unexplained(row | {"case": "odd", "kernel": "update_kernel"}) == ["latency hidden"]
    assert all(kernel in BOUNDS for kernel, _ in EXPLAINED)
