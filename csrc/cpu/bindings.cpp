// The Python module rac_kernels._C_cpu. Addresses arrive as integers, so that one build serves any
// torch; the GIL is released while a kernel runs. rac_kernels/ops has validated everything: the
// checks here are for what would corrupt memory.

#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "../interface.h"
#include "isa.h"
#include "kernels.h"

namespace py = pybind11;

// Each in the file of its name, bindings_*.cpp.
void bind_capture(py::module_& module);
void bind_layer(py::module_& module);
void bind_linear(py::module_& module);
void bind_masks(py::module_& module);
void bind_packing(py::module_& module);
void bind_sparsegpt(py::module_& module);

namespace {

void hessian_accumulate_at(uintptr_t hessian, int64_t stride_hessian, bool packed, uintptr_t x,
                           int64_t stride_x, int dtype, uintptr_t row_weight, int64_t rows,
                           int64_t features, int threads) {
  if (rows < 0 || features < 0 || dtype < 0 || dtype > 2 || threads < 1) {
    throw std::invalid_argument("hessian_accumulate: rows, features, dtype or threads");
  }
  if (!packed && rows > 0 && features > 1 && stride_hessian < features) {
    throw std::invalid_argument("hessian_accumulate: the rows of H overlap");
  }
  const TriangleUpdate job{reinterpret_cast<float*>(hessian),
                           stride_hessian,
                           packed,
                           reinterpret_cast<const void*>(x),
                           stride_x,
                           dtype,
                           reinterpret_cast<const float*>(row_weight),
                           rows,
                           features,
                           threads};
  const py::gil_scoped_release release;
  hessian_accumulate(job);
}

void nucleus_sample_at(uintptr_t logits, int64_t stride, uintptr_t uniform, uintptr_t ids,
                       int64_t batch, int64_t vocabulary, float temperature, double top_p,
                       int dtype, int threads) {
  if (vocabulary < 1 || vocabulary > std::numeric_limits<int32_t>::max() || dtype < 0 ||
      dtype > 1) {
    throw std::invalid_argument("nucleus_sample: vocabulary or dtype out of range");
  }
  const NucleusJob job{reinterpret_cast<const void*>(logits),
                       stride,
                       reinterpret_cast<const float*>(uniform),
                       reinterpret_cast<int64_t*>(ids),
                       batch,
                       vocabulary,
                       temperature,
                       top_p,
                       dtype,
                       threads};
  const py::gil_scoped_release release;
  nucleus_sample(job);
}

}  // namespace

PYBIND11_MODULE(_C_cpu, module) {
  module.attr("INTERFACE") = INTERFACE;
  module.def("instruction_set", &isa_name);
  module.def("use_instruction_set", &use_isa, py::arg("name"));
  module.def("hessian_accumulate", &hessian_accumulate_at, py::kw_only(), py::arg("hessian"),
             py::arg("stride_hessian"), py::arg("packed"), py::arg("x"), py::arg("stride_x"),
             py::arg("dtype"), py::arg("row_weight"), py::arg("rows"), py::arg("features"),
             py::arg("threads"));
  module.def("nucleus_sample", &nucleus_sample_at, py::kw_only(), py::arg("logits"),
             py::arg("stride"), py::arg("uniform"), py::arg("ids"), py::arg("batch"),
             py::arg("vocabulary"), py::arg("temperature"), py::arg("top_p"), py::arg("dtype"),
             py::arg("threads"));
  bind_capture(module);
  bind_layer(module);
  bind_linear(module);
  bind_masks(module);
  bind_packing(module);
  bind_sparsegpt(module);
}
