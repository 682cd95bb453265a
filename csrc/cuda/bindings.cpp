// The Python module rac_kernels._C_cuda. Addresses and the stream arrive as integers, so that one
// build serves any torch; it loads where there is no driver and says so when called.

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "../interface.h"
#include "select_mask.h"

namespace py = pybind11;

// Each in the file of its name, bindings_*.cpp.
void bind_linear(py::module_& module);
void bind_packing(py::module_& module);

namespace {

void select_mask_at(uintptr_t scores, uintptr_t keep, int64_t groups, int n, int m, int dtype,
                    uintptr_t stream) {
  if (m < 1 || n < 0 || n > m || dtype < 0 || dtype > 2) {
    throw std::invalid_argument("select_mask: n, m or dtype out of range");
  }
  int error;
  {
    const py::gil_scoped_release release;
    error = select_mask_cuda(reinterpret_cast<const void*>(scores),
                             reinterpret_cast<uint8_t*>(keep), groups, n, m, dtype,
                             reinterpret_cast<void*>(stream));
  }
  if (error != 0) {
    throw std::runtime_error("select_mask: CUDA error " + std::to_string(error) + ", " +
                             cuda_error_text(error));
  }
}

}  // namespace

PYBIND11_MODULE(_C_cuda, module) {
  module.attr("INTERFACE") = INTERFACE;
  module.def("select_mask", &select_mask_at, py::kw_only(), py::arg("scores"), py::arg("keep"),
             py::arg("groups"), py::arg("n"), py::arg("m"), py::arg("dtype"), py::arg("stream"));
  bind_linear(module);
  bind_packing(module);
}
