"""Every public op has tests that a GPU runs: implementation, dtypes, shapes and graphs by op."""

import ast
import re
from pathlib import Path

import pytest

from rac_kernels import ops

TESTS = Path(__file__).resolve().parent
ALL, HALVES, WIDE = "bf16 fp16 fp32", "bf16 fp16", "fp32"
# Op -> implementation that runs on a GPU, dtypes, and the tests that run it there. One block and
# less, off a block, strided and empty are in all of them; "graph" in a name: recorded and replayed.
COVERED: dict[str, list[tuple[str, str, list[str]]]] = {
    "alps": [("reference", ALL, ["test_alps::test_on_a_gpu"])],
    "capture_": [
        ("triton", ALL, ["test_capture::test_active_rows_are_appended_in_order"]),
        (
            "triton",
            ALL,
            ["test_capture_cuda::test_replayed_captures_hold_every_active_row_in_order"],
        ),
        ("triton", WIDE, ["test_capture_cuda::test_counts_are_exact_over_many_graph_replays"]),
    ],
    "decode_attention": [
        ("reference", ALL, ["test_ops_gpu::test_decode_attention_is_that_of_the_cpu"])
    ],
    "factor_hessian": [
        ("triton", WIDE, ["test_triton_factor::test_factors_the_damped_hessian"]),
        ("triton reference", WIDE, ["test_triton_factor::test_real_sizes"]),
    ],
    "factor_hessians": [
        ("auto", WIDE, ["test_ops_gpu::test_batches_are_what_their_layers_are_alone"])
    ],
    "flush_": [
        (
            "triton",
            "bf16 fp32",
            ["test_capture_cuda::test_flushes_on_the_side_stream_lose_and_double_nothing"],
        ),
        ("triton", WIDE, ["test_flush::test_halves_take_turns"]),
    ],
    "hessian_accumulate_": [
        (
            "triton",
            ALL,
            ["test_hessian_gpu::test_shapes", "test_hessian_triton::test_strided_rows"],
        ),
        ("triton", "bf16", ["test_hessian_gpu::test_offsets_beyond_32_bits"]),
        ("triton", ALL, ["test_graphs_gpu::test_replayed_in_a_graph_as_run_eagerly"]),
        (
            "triton",
            "bf16",
            ["test_hessian_gpu::test_the_same_bits_again_even_with_another_stream_at_work"],
        ),
    ],
    "linear_2to4": [
        (
            "native",
            HALVES,
            ["test_cuda_kernels::test_shapes", "test_cuda_kernels::test_offsets_beyond_32_bits"],
        ),
        (
            "native",
            "bf16",
            ["test_cuda_kernels::test_inside_cuda_graphs_before_during_and_after_eager_calls"],
        ),
        ("auto cusparselt cutlass", HALVES, ["test_linear_2to4::test_on_a_gpu"]),
        ("cusparselt reference", ALL, ["test_graphs_gpu::test_replayed_in_a_graph_as_run_eagerly"]),
    ],
    "linear_2to4_fp8": [
        ("native", HALVES, ["test_linear_fp8_cuda::test_shapes_on_a_gpu"]),
        ("native", HALVES, ["test_linear_fp8_cuda::test_sums_are_exact_on_a_gpu_where_float32_is"]),
        ("native", "bf16", ["test_linear_fp8_cuda::test_inside_a_cuda_graph_on_a_gpu"]),
        (
            "cusparselt",
            "bf16",
            ["test_linear_fp8_cuda::test_cusparselt_multiplies_the_same_on_a_gpu"],
        ),
    ],
    "linear_bitmap": [
        ("native", HALVES, ["test_cuda_kernels::test_every_number_of_tokens"]),
        ("native", HALVES, ["test_cuda_kernels::test_leading_dimensions_strides_and_addresses"]),
    ],
    "magnitude": [
        ("triton", ALL, ["test_triton_masks::test_wanda_and_magnitude_are_the_references"]),
        ("triton", HALVES, ["test_ops_gpu::test_large_masks_beyond_32_bits"]),
    ],
    "mask_and_pack_2to4": [
        ("native", HALVES, ["test_pack_2to4_gpu::test_mask_and_pack_is_the_references"])
    ],
    "nucleus_sample": [
        ("triton reference", ALL, ["test_nucleus_sample_gpu::test_gpu_vocabularies_equal_float64"]),
        (
            "triton",
            WIDE,
            ["test_nucleus_sample_gpu::test_gpu_chooses_triton_and_draws_inside_a_cuda_graph"],
        ),
    ],
    "pack_2to4": [
        (
            "native",
            "bf16 fp16 int8 fp8",
            ["test_pack_2to4_gpu::test_packing_is_torchs_and_unpacking_the_way_back"],
        ),
        (
            "native",
            "bf16 fp16 int8 fp8",
            ["test_pack_2to4_gpu::test_weights_that_are_not_on_16_bytes_or_contiguous"],
        ),
        (
            "native",
            "bf16",
            ["test_pack_2to4_gpu::test_auto_is_native_and_runs_on_the_current_stream"],
        ),
    ],
    "pack_bitmap": [
        ("reference", HALVES, ["test_ops_gpu::test_bitmaps_are_those_of_the_cpu_and_come_back"])
    ],
    "quantize_fp8_rows": [
        ("triton", ALL, ["test_quantize_fp8_rows::test_shapes"]),
        (
            "triton",
            "bf16",
            ["test_quantize_fp8_rows::test_on_a_gpu_auto_is_triton_and_is_recorded_in_a_graph"],
        ),
    ],
    "rmsnorm_capture": [
        (
            "triton",
            ALL,
            ["test_capture_cuda::test_replayed_captures_hold_every_active_row_in_order"],
        )
    ],
    "select_mask": [
        (
            "triton",
            ALL,
            ["test_triton_masks::test_n_m", "test_triton_masks::test_rows_of_real_length"],
        ),
        ("triton", HALVES, ["test_ops_gpu::test_large_masks_beyond_32_bits"]),
        ("triton", ALL, ["test_graphs_gpu::test_replayed_in_a_graph_as_run_eagerly"]),
        ("native", ALL, ["test_native::test_cuda_masks_equal_the_references"]),
    ],
    "sparsegpt": [
        ("triton", "bf16 fp32", ["test_triton_sparsegpt::test_real_sizes"]),
        ("triton", HALVES, ["test_triton_sparsegpt::test_half_precision_weights_are_rounded_once"]),
        ("triton", "bf16", ["test_ops_gpu::test_large_weights_of_sparsegpt_beyond_32_bits"]),
        ("triton", ALL, ["test_graphs_gpu::test_replayed_in_a_graph_as_run_eagerly"]),
    ],
    "sparsegpt_batch": [
        ("auto", WIDE, ["test_ops_gpu::test_batches_are_what_their_layers_are_alone"])
    ],
    "swiglu_capture": [
        (
            "triton",
            ALL,
            ["test_capture_cuda::test_replayed_captures_hold_every_active_row_in_order"],
        )
    ],
    "symmetrize_": [("reference", WIDE, ["test_ops_gpu::test_symmetrize"])],
    "unpack_2to4": [
        (
            "native reference",
            "bf16 fp16 int8 fp8",
            ["test_pack_2to4_gpu::test_packing_is_torchs_and_unpacking_the_way_back"],
        )
    ],
    "unpack_bitmap": [
        ("reference", HALVES, ["test_ops_gpu::test_bitmaps_are_those_of_the_cpu_and_come_back"])
    ],
    "wanda": [
        ("triton", ALL, ["test_triton_masks::test_real_sizes"]),
        ("triton", ALL, ["test_graphs_gpu::test_replayed_in_a_graph_as_run_eagerly"]),
    ],
}
# What a file says of a test that a GPU selects: the mark, or a parametrisation that carries it.
MARKED = re.compile(r"mark\.gpu|every_impl|@implementation|on_gpu")
SHARED = {"capturing.py": "pytest.mark.gpu", "nucleus.py": "pytest.mark.gpu"}


def test_every_public_op_is_covered():
    # linear_dense is torch's product on a GPU, whole layers are for CPUs
    elsewhere = {"native_status", "linear_status", "linear_dense"}
    elsewhere |= {"DecoderLayer", "KeyValueCaches", "decode_layers"}
    assert set(COVERED) == set(ops.__all__) - elsewhere


@pytest.mark.parametrize("op", COVERED)
def test_the_tests_are_there_and_a_gpu_runs_them(op):
    for _, _, tests in COVERED[op]:
        for file, name in (test.split("::") for test in tests):
            text = (TESTS / f"{file}.py").read_text()
            functions = {n.name: n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)}
            assert name in functions, f"{file} has no {name}"
            header = text.split("\ndef ")[0]
            decorators = " ".join(map(ast.unparse, functions[name].decorator_list))
            assert MARKED.search(decorators + header) or "marks=gpu" in decorators, name


@pytest.mark.parametrize("file", SHARED)
def test_shared_parametrisations_carry_the_mark(file):
    assert SHARED[file] in (TESTS / file).read_text()
