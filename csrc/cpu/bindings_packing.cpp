// The part of rac_kernels._C_cpu that packs sparse weights; see bindings.cpp.

#include <pybind11/pybind11.h>

#include <stdexcept>

#include "packing.h"

namespace py = pybind11;

namespace {

void check(int64_t rows, int64_t columns, int64_t padded, int value, int threads) {
  if (value < 0 || value > 3 || threads < 1) {
    throw std::invalid_argument("packing: dtype or threads out of range");
  }
  const int64_t size = bytes_of(static_cast<Value>(value));
  if (rows < 0 || padded < rows || padded % (16 * size) != 0 || columns < 1 ||
      columns % (64 / size) != 0) {
    throw std::invalid_argument("packing: rows or columns do not make whole tiles of metadata");
  }
}

int64_t pack_2to4_at(uintptr_t weight, int64_t stride_bytes, int64_t rows, int64_t columns,
                     int64_t padded, uintptr_t values, uintptr_t metadata, uintptr_t scale,
                     int value, bool prune, int threads) {
  check(rows, columns, padded, value, threads);
  if (prune && value > 1) throw std::invalid_argument("packing: prunes 16-bit values alone");
  const PackJob job{reinterpret_cast<const uint8_t*>(weight),
                    stride_bytes,
                    rows,
                    columns,
                    padded,
                    reinterpret_cast<uint8_t*>(values),
                    reinterpret_cast<uint8_t*>(metadata),
                    reinterpret_cast<const float*>(scale),
                    static_cast<Value>(value),
                    prune,
                    threads};
  const py::gil_scoped_release release;
  return pack_2to4(job);
}

int64_t unpack_2to4_at(uintptr_t values, uintptr_t metadata, int64_t rows, int64_t columns,
                       int64_t padded, uintptr_t weight, int value, int threads) {
  check(rows, columns, padded, value, threads);
  const UnpackJob job{reinterpret_cast<const uint8_t*>(values),
                      reinterpret_cast<const uint8_t*>(metadata),
                      rows,
                      columns,
                      padded,
                      reinterpret_cast<uint8_t*>(weight),
                      static_cast<Value>(value),
                      threads};
  const py::gil_scoped_release release;
  return unpack_2to4(job);
}

}  // namespace

void bind_packing(py::module_& module) {
  module.def("pack_2to4", &pack_2to4_at, py::kw_only(), py::arg("weight"), py::arg("stride_bytes"),
             py::arg("rows"), py::arg("columns"), py::arg("padded"), py::arg("values"),
             py::arg("metadata"), py::arg("scale"), py::arg("value"), py::arg("prune"),
             py::arg("threads"));
  module.def("unpack_2to4", &unpack_2to4_at, py::kw_only(), py::arg("values"), py::arg("metadata"),
             py::arg("rows"), py::arg("columns"), py::arg("padded"), py::arg("weight"),
             py::arg("value"), py::arg("threads"));
}
