// The part of rac_kernels._C_cpu that multiplies with packed weights, and with dense ones of 16
// bits; see bindings.cpp.

#include <pybind11/pybind11.h>

#include <stdexcept>

#include "huge_pages.h"
#include "isa.h"
#include "lanes.h"
#include "linear_sparse.h"
#include "pack_bitmap.h"
#include "quantize_fp8.h"

namespace py = pybind11;

namespace {

LinearWeight weight_at(uintptr_t values, uintptr_t codes, uintptr_t offsets, uintptr_t scale,
                       int64_t rows, int64_t columns, int value) {
  if (rows < 0 || columns < 1 || value < 0 || value > 3) {
    throw std::invalid_argument("SparseWeight: sizes or value out of range");
  }
  const bool two_to_four = codes && !offsets;
  if (two_to_four ? columns % (value > 1 ? 64 : 32) != 0 : value > 1) {
    throw std::invalid_argument("SparseWeight: columns or value that this packing does not have");
  }
  return {reinterpret_cast<const uint8_t*>(values),
          reinterpret_cast<const uint8_t*>(codes),
          reinterpret_cast<const int64_t*>(offsets),
          reinterpret_cast<const float*>(scale),
          rows,
          columns,
          static_cast<Value>(value)};
}

// y [tokens, rows] is bfloat16 if x is, else float32.
void linear_at(const LinearWeight& weight, uintptr_t x, int element, bool rounds_x, uintptr_t y,
               uintptr_t bias, int64_t tokens, int threads) {
  if (rounds_x && weight.value != Value::FLOAT8) {
    throw std::invalid_argument("SparseWeight: x is rounded to fp8 beside fp8 alone");
  }
  if (tokens < 1 || element < 0 || element > 2 || threads < 1) {
    throw std::invalid_argument("SparseWeight: tokens, element or threads out of range");
  }
  const py::gil_scoped_release release;
  linear({weight, reinterpret_cast<const float*>(bias), rounds_x}, reinterpret_cast<const void*>(x),
         static_cast<Element>(element), reinterpret_cast<void*>(y), tokens, threads);
}

void unpack_rows_at(const LinearWeight& weight, int64_t row, int64_t rows, uintptr_t dense,
                    int threads) {
  const bool two_to_four = weight.codes && !weight.offsets && weight.value == Value::BFLOAT16;
  if (!two_to_four || current_isa() < Isa::AMX || row % 4 != 0 || row < 0 || rows < 0 ||
      row + rows > weight.rows || threads < 1) {
    throw std::invalid_argument("unpack_rows: weight, rows or threads out of range");
  }
  const py::gil_scoped_release release;
  unpack_rows(weight, row, rows, reinterpret_cast<uint16_t*>(dense), threads);
}

void codes_2to4_at(uintptr_t metadata, uintptr_t codes, int64_t rows, int64_t columns,
                   int value_bytes, int threads) {
  if ((value_bytes != 1 && value_bytes != 2) || rows % (value_bytes * 16) != 0 ||
      columns % (value_bytes == 2 ? 32 : 64) != 0 || threads < 1) {
    throw std::invalid_argument("codes_2to4: sizes or threads out of range");
  }
  const py::gil_scoped_release release;
  codes_2to4(reinterpret_cast<const uint8_t*>(metadata), reinterpret_cast<uint8_t*>(codes), rows,
             columns, value_bytes, threads);
}

void quantize_fp8_rows_at(uintptr_t x, int64_t stride, uintptr_t values, uintptr_t scale,
                          int64_t rows, int64_t columns, int dtype, bool bfloat16_scale,
                          int threads) {
  if (rows < 0 || columns < 0 || dtype < 0 || dtype > 2 || threads < 1) {
    throw std::invalid_argument("quantize_fp8_rows: sizes, dtype or threads out of range");
  }
  const QuantizeRows job{reinterpret_cast<const void*>(x),
                         stride,
                         reinterpret_cast<uint8_t*>(values),
                         reinterpret_cast<float*>(scale),
                         rows,
                         columns,
                         dtype,
                         bfloat16_scale,
                         threads};
  const py::gil_scoped_release release;
  quantize_fp8_rows(job);
}

void collapse_at(uintptr_t memory, int64_t bytes) {
  const py::gil_scoped_release release;
  collapse_huge_pages(reinterpret_cast<const void*>(memory), bytes);
}

BitmapRows bitmap_rows(uintptr_t dense, int64_t stride, uintptr_t bitmap, uintptr_t offsets,
                       uintptr_t values, int64_t rows, int64_t columns, int threads) {
  if (rows < 0 || columns < 0 || (rows > 1 && stride < columns) || threads < 1) {
    throw std::invalid_argument("pack_bitmap: sizes or threads out of range");
  }
  return {reinterpret_cast<uint16_t*>(dense),
          stride,
          reinterpret_cast<uint8_t*>(bitmap),
          reinterpret_cast<int64_t*>(offsets),
          reinterpret_cast<uint16_t*>(values),
          rows,
          columns,
          threads};
}

template <auto function>
auto bitmap_at(uintptr_t dense, int64_t stride, uintptr_t bitmap, uintptr_t offsets,
               uintptr_t values, int64_t rows, int64_t columns, int threads) {
  const auto job = bitmap_rows(dense, stride, bitmap, offsets, values, rows, columns, threads);
  const py::gil_scoped_release release;
  return function(job);
}

}  // namespace

void bind_linear(py::module_& module) {
  py::class_<LinearWeight>(module, "SparseWeight", py::module_local())
      .def(py::init(&weight_at))
      .def("linear", &linear_at)
      .def("unpack_rows", &unpack_rows_at);
  module.def("codes_2to4", &codes_2to4_at);
  module.def("quantize_fp8_rows", &quantize_fp8_rows_at);
  module.def("collapse_huge_pages", &collapse_at);
  module.def("bitmap_count", &bitmap_at<bitmap_count>);
  module.def("bitmap_pack", &bitmap_at<bitmap_pack>);
  module.def("bitmap_unpack", &bitmap_at<bitmap_unpack>);
}
