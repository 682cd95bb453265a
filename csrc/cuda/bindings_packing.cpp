// The part of rac_kernels._C_cuda that packs sparse weights; see bindings.cpp.

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "packing.h"
#include "select_mask.h"

namespace py = pybind11;

namespace {

void check(int64_t rows, int64_t columns, int64_t padded, int value) {
  if (value < 0 || value > 3) throw std::invalid_argument("packing: dtype out of range");
  const int64_t size = bytes_of(static_cast<Value>(value));
  if (rows < 0 || padded < rows || padded % (16 * size) != 0 || columns < 1 ||
      columns % (64 / size) != 0) {
    throw std::invalid_argument("packing: rows or columns do not make whole tiles of metadata");
  }
}

void raise(const char* op, int error) {
  if (error == 0) return;
  throw std::runtime_error(std::string(op) + ": CUDA error " + std::to_string(error) + ", " +
                           cuda_error_text(error));
}

void pack_2to4_at(uintptr_t weight, int64_t stride_bytes, int64_t rows, int64_t columns,
                  int64_t padded, uintptr_t values, uintptr_t metadata, uintptr_t scale, int value,
                  bool prune, uintptr_t first, uintptr_t stream) {
  check(rows, columns, padded, value);
  if (prune && value > 1) throw std::invalid_argument("packing: prunes 16-bit values alone");
  if (weight % 16 != 0 || stride_bytes % 16 != 0) {
    throw std::invalid_argument("packing: rows do not begin on 16 bytes");
  }
  const CudaPack job{reinterpret_cast<const uint8_t*>(weight),
                     stride_bytes,
                     rows,
                     columns,
                     padded,
                     reinterpret_cast<uint8_t*>(values),
                     reinterpret_cast<uint8_t*>(metadata),
                     reinterpret_cast<const float*>(scale),
                     static_cast<Value>(value),
                     prune,
                     reinterpret_cast<int64_t*>(first),
                     reinterpret_cast<void*>(stream)};
  int error;
  {
    const py::gil_scoped_release release;
    error = pack_2to4_cuda(job);
  }
  raise("pack_2to4", error);
}

void unpack_2to4_at(uintptr_t values, uintptr_t metadata, int64_t rows, int64_t columns,
                    int64_t padded, uintptr_t weight, int value, uintptr_t first,
                    uintptr_t stream) {
  check(rows, columns, padded, value);
  if (values % 16 != 0 || metadata % 16 != 0) {
    throw std::invalid_argument("packing: values or metadata do not begin on 16 bytes");
  }
  const CudaUnpack job{reinterpret_cast<const uint8_t*>(values),
                       reinterpret_cast<const uint8_t*>(metadata),
                       rows,
                       columns,
                       padded,
                       reinterpret_cast<uint8_t*>(weight),
                       static_cast<Value>(value),
                       reinterpret_cast<int64_t*>(first),
                       reinterpret_cast<void*>(stream)};
  int error;
  {
    const py::gil_scoped_release release;
    error = unpack_2to4_cuda(job);
  }
  raise("unpack_2to4", error);
}

}  // namespace

void bind_packing(py::module_& module) {
  module.def("pack_2to4", &pack_2to4_at, py::kw_only(), py::arg("weight"), py::arg("stride_bytes"),
             py::arg("rows"), py::arg("columns"), py::arg("padded"), py::arg("values"),
             py::arg("metadata"), py::arg("scale"), py::arg("value"), py::arg("prune"),
             py::arg("first"), py::arg("stream"));
  module.def("unpack_2to4", &unpack_2to4_at, py::kw_only(), py::arg("values"), py::arg("metadata"),
             py::arg("rows"), py::arg("columns"), py::arg("padded"), py::arg("weight"),
             py::arg("value"), py::arg("first"), py::arg("stream"));
}
