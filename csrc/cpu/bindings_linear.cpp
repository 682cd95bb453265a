// The part of rac_kernels._C_cpu that multiplies with packed weights; see bindings.cpp.

#include <pybind11/pybind11.h>

#include <stdexcept>

#include "huge_pages.h"
#include "linear_sparse.h"
#include "pack_bitmap.h"

namespace py = pybind11;

namespace {

void linear_at(bool many, uintptr_t x, uintptr_t y, uintptr_t values, uintptr_t codes,
               uintptr_t offsets, uintptr_t scale, uintptr_t bias, int64_t tokens, int64_t rows,
               int64_t columns, int64_t padded, int value, int threads) {
  if (tokens < 1 || rows < 0 || columns < 1 || padded % 16 != 0 || padded < columns || value < 0 ||
      value > 3 || threads < 1) {
    throw std::invalid_argument("linear_sparse: sizes, value or threads out of range");
  }
  if (offsets ? value > 1 : columns % 32 != 0) {
    throw std::invalid_argument("linear_sparse: columns or value that this packing does not have");
  }
  const SparseLinear job{reinterpret_cast<const float*>(x),
                         reinterpret_cast<float*>(y),
                         reinterpret_cast<const uint8_t*>(values),
                         reinterpret_cast<const uint8_t*>(codes),
                         reinterpret_cast<const int64_t*>(offsets),
                         reinterpret_cast<const float*>(scale),
                         reinterpret_cast<const float*>(bias),
                         tokens,
                         rows,
                         columns,
                         padded,
                         static_cast<Value>(value),
                         threads};
  const py::gil_scoped_release release;
  if (many) linear_many(job);
  else linear_few(job);
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
  module.def("linear_sparse", &linear_at);
  module.def("codes_2to4", &codes_2to4_at);
  module.def("collapse_huge_pages", &collapse_at);
  module.def("bitmap_count", &bitmap_at<bitmap_count>);
  module.def("bitmap_pack", &bitmap_at<bitmap_pack>);
  module.def("bitmap_unpack", &bitmap_at<bitmap_unpack>);
}
