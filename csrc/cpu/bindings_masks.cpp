// The part of rac_kernels._C_cpu that chooses which weights go; see bindings.cpp.

#include <pybind11/pybind11.h>

#include <stdexcept>

#include "masks.h"

namespace py = pybind11;

namespace {

bool select_mask_at(uintptr_t weight, int64_t stride, int64_t rows, int64_t columns, int dtype,
                    int score, uintptr_t scale, uintptr_t keep, uintptr_t pruned, int64_t together,
                    int64_t width, int64_t count, int64_t last_count, int threads) {
  if (rows < 0 || columns < 0 || stride < 0 || dtype < 0 || dtype > 2 || score < 0 || score > 2) {
    throw std::invalid_argument("select_mask: rows, columns, stride, dtype or score out of range");
  }
  if (width < 1 || (together != 1 && together != rows) || count < 0 || last_count < 0 ||
      threads < 1) {
    throw std::invalid_argument("select_mask: width, together, count or threads out of range");
  }
  if (static_cast<MaskScore>(score) == MaskScore::WANDA && scale == 0) {
    throw std::invalid_argument("select_mask: Wanda's score needs a scale");
  }
  const MaskJob job{reinterpret_cast<const void*>(weight),
                    stride,
                    rows,
                    columns,
                    dtype,
                    static_cast<MaskScore>(score),
                    reinterpret_cast<const float*>(scale),
                    reinterpret_cast<uint8_t*>(keep),
                    reinterpret_cast<void*>(pruned),
                    together,
                    width,
                    count,
                    last_count,
                    threads};
  const py::gil_scoped_release release;
  return select_mask(job);
}

}  // namespace

void bind_masks(py::module_& module) {
  module.def("select_mask", &select_mask_at, py::kw_only(), py::arg("weight"), py::arg("stride"),
             py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("score"),
             py::arg("scale"), py::arg("keep"), py::arg("pruned"), py::arg("together"),
             py::arg("width"), py::arg("count"), py::arg("last_count"), py::arg("threads"));
}
