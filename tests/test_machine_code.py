"""What ptxas made of the CUDA linears: no spills, wide instructions, blocks that fit."""

import pytest
from emulated_linear import library, plan

from benchmarks import machine_code
from rac_kernels import native_status

SHAPES = [(8, 4), (16, 4), (32, 4), (64, 4), (64, 8)]  # tokens, warps
pytestmark = pytest.mark.skipif(
    native_status()["cuda"] != "ok" or machine_code.cuobjdump() is None,
    reason=f"no cuobjdump, or {native_status()['cuda']}",
)


@pytest.fixture(scope="module")
def rows():
    return machine_code.kernels()


def test_every_kernel_is_there_for_every_architecture(rows):
    found = {(r["arch"], r["kernel"], r["dtype"], r["tokens"], r["warps"]) for r in rows}
    assert found == {
        (arch, kernel, dtype, *shape)
        for arch in machine_code.DEVICES
        for kernel in ("linear_2to4", "linear_2to4_fp8", "linear_bitmap")
        for dtype in ("bfloat16", "float16")
        for shape in SHAPES
    }


def test_nothing_spills(rows):
    for row in rows:
        assert row["stack"] == 0, row  # neither spills nor arrays indexed at run time
        assert row["registers"] * 32 * row["warps"] <= machine_code.REGISTERS, row


def test_2to4_weights_go_from_16_byte_copies_into_sparse_products(rows):
    for row in (row for row in rows if row["kernel"] == "linear_2to4"):
        # A chunk of W: four times two halves of a strip, for every eight tokens; an ldmatrix for
        # two products; nine vectors from shared memory, copied in two places.
        assert row["sparse_mma"] == row["tokens"] and row["dense_mma"] == 0, row
        assert row["ldmatrix"] == row["tokens"] // 2, row
        assert row["shared_16_bytes"] == 9 and row["copies_of_16_bytes"] >= 18, row


def test_fp8_weights_go_from_16_byte_copies_through_conversions_into_sparse_products(rows):
    for row in (row for row in rows if row["kernel"] == "linear_2to4_fp8"):
        # As above, but that a vector holds both halves of a strip: five in place of nine.
        assert row["sparse_mma"] == row["tokens"] and row["dense_mma"] == 0, row
        assert row["ldmatrix"] == row["tokens"] // 2, row
        assert row["shared_16_bytes"] == 5 and row["copies_of_16_bytes"] >= 10, row
        # An instruction for two values of the 64 of a lane where there is one.
        assert row["from_fp8"] == (32 if row["arch"] in ("sm_89", "sm_90a") else 0), row


def test_bitmap_weights_take_one_population_count_for_two_weights(rows):
    for row in (row for row in rows if row["kernel"] == "linear_bitmap"):
        assert row["dense_mma"] == 8 * row["tokens"] // 8 and row["sparse_mma"] == 0, row
        assert row["ldmatrix"] == row["tokens"] // 4, row
        assert row["population_counts"] == 32, row  # of 64 weights a lane and chunk
        assert row["shared_2_bytes"] == 64 and row["copies_of_16_bytes"] >= 4, row


def test_packing_and_masks_keep_enough_16_byte_loads_under_way():
    rows = machine_code.streamed_kernels()
    assert {row["arch"] for row in rows} == set(machine_code.DEVICES)
    assert {row["kernel"] for row in rows} == {
        *("pack_2to4_kernel", "unpack_2to4_kernel"),
        *("select_mask_group", "select_mask_vector"),
    }
    for row in rows:
        assert row["stack"] == 0, row
        if row["global_16_bytes"] or "mask" not in row["kernel"]:  # not a thread a group, not m = 1
            assert row["under_way"] >= row["under_way_wanted"], row
        assert row["warps_that_fit"] >= 16, row


def test_plans_keep_their_blocks_on_the_device(rows):
    planned = [row for row in rows if row["planned_for"] is not None]
    assert {row["planned_for"] for row in planned} == {"A100", "RTX 3090", "L40S", "H100"}
    for row in planned:
        assert row["blocks_that_fit"] >= row["blocks_per_sm"] >= 1, row  # registers leave room too
        assert row["latency_hidden_us"] > 1, row


def test_the_module_plans_as_the_emulation_does(rows):
    if isinstance(library(), str):
        pytest.skip(library())
    for row in (row for row in rows if row["planned_for"] and row["kernel"] == "linear_2to4"):
        _, sms, block, whole, _ = machine_code.DEVICES[row["arch"]]
        _, warps, stages, _, shared, _ = plan(row["tokens"], 18944, 3584, (sms, block, whole))
        assert (row["warps"], row["stages"], row["shared"]) == (warps, stages, shared)
