// The part of rac_kernels._C_cuda that packs sparse weights; see bindings.cpp.

#include "../bindings_packing.h"

#include <string>

#include "packing.h"
#include "select_mask.h"

namespace py = pybind11;

namespace {

// Launch without the GIL, and raise what went wrong.
template <typename Job>
void launch(const char* op, int (*function)(const Job&), const Job& job) {
  int error;
  {
    const py::gil_scoped_release release;
    error = function(job);
  }
  if (error == 0) return;
  throw std::runtime_error(std::string(op) + ": CUDA error " + std::to_string(error) + ", " +
                           cuda_error_text(error));
}

void pack_2to4_at(uintptr_t weight, int64_t stride_bytes, int64_t rows, int64_t columns,
                  int64_t padded, uintptr_t values, uintptr_t metadata, uintptr_t scale, int value,
                  bool prune, uintptr_t first, uintptr_t stream) {
  if (weight % 16 != 0 || stride_bytes % 16 != 0) {
    throw std::invalid_argument("packing: rows do not begin on 16 bytes");
  }
  const CudaPack job{packing_at(weight, stride_bytes, rows, columns, padded, values, metadata,
                                scale, value, prune),
                     reinterpret_cast<int64_t*>(first), reinterpret_cast<void*>(stream)};
  launch("pack_2to4", &pack_2to4_cuda, job);
}

void unpack_2to4_at(uintptr_t values, uintptr_t metadata, int64_t rows, int64_t columns,
                    int64_t padded, uintptr_t weight, int value, uintptr_t first,
                    uintptr_t stream) {
  if (values % 16 != 0 || metadata % 16 != 0) {
    throw std::invalid_argument("packing: values or metadata do not begin on 16 bytes");
  }
  const CudaUnpack job{unpacking_at(values, metadata, rows, columns, padded, weight, value),
                       reinterpret_cast<int64_t*>(first), reinterpret_cast<void*>(stream)};
  launch("unpack_2to4", &unpack_2to4_cuda, job);
}

}  // namespace

void bind_packing(py::module_& module) {
  define_packing(module, &pack_2to4_at, &unpack_2to4_at, py::arg("first"), py::arg("stream"));
}
