// The part of rac_kernels._C_cpu that packs sparse weights; see bindings.cpp.

#include "../bindings_packing.h"

#include "packing.h"

namespace py = pybind11;

namespace {

void check_threads(int threads) {
  if (threads < 1) throw std::invalid_argument("packing: threads out of range");
}

int64_t pack_2to4_at(uintptr_t weight, int64_t stride_bytes, int64_t rows, int64_t columns,
                     int64_t padded, uintptr_t values, uintptr_t metadata, uintptr_t scale,
                     int value, bool prune, int threads) {
  check_threads(threads);
  const PackJob job{packing_at(weight, stride_bytes, rows, columns, padded, values, metadata,
                               scale, value, prune),
                    threads};
  const py::gil_scoped_release release;
  return pack_2to4(job);
}

int64_t unpack_2to4_at(uintptr_t values, uintptr_t metadata, int64_t rows, int64_t columns,
                       int64_t padded, uintptr_t weight, int value, int threads) {
  check_threads(threads);
  const UnpackJob job{unpacking_at(values, metadata, rows, columns, padded, weight, value),
                      threads};
  const py::gil_scoped_release release;
  return unpack_2to4(job);
}

}  // namespace

void bind_packing(py::module_& module) {
  define_packing(module, &pack_2to4_at, &unpack_2to4_at, py::arg("threads"));
}
