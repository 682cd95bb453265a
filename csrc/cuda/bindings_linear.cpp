// Python's view of linear_2to4.h.

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "linear_2to4.h"
#include "select_mask.h"

namespace py = pybind11;

namespace {

void check(int error) {
  if (error == 0) return;
  throw std::runtime_error("linear_2to4: CUDA error " + std::to_string(error) + ", " +
                           cuda_error_text(error));
}

template <typename T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

linear_2to4::Plan plan(int64_t tokens, int64_t rows, int64_t columns, int sms, int shared_block,
                       int shared_sm) {
  if (tokens < 1 || tokens > linear_2to4::MAX_TOKENS || rows < 1 || columns < 8 || columns % 8) {
    throw std::invalid_argument("linear_2to4: tokens, rows or columns out of range");
  }
  const auto plan = linear_2to4::plan(tokens, rows, columns, sms, shared_block, shared_sm);
  if (plan.blocks < 1) {
    throw std::invalid_argument("linear_2to4: W is too large, or shared memory too small");
  }
  return plan;
}

void linear(uintptr_t weight, uintptr_t x, uintptr_t y, uintptr_t scale, uintptr_t bias,
            uintptr_t partials, uintptr_t arrived, int64_t stride, int64_t tokens, int64_t rows,
            int64_t columns, bool bias_is_float, const linear_2to4::Plan& plan, int dtype,
            uintptr_t stream) {
  if (tokens < 1 || tokens > 8 * plan.token_tiles || stride % 8 || columns % 8 || dtype < 1 ||
      dtype > 2 || weight % 16 || x % 16 || partials % 16) {
    throw std::invalid_argument("linear_2to4: a size, stride or address does not fit the plan");
  }
  const linear_2to4::Arguments arguments{
      at<const void>(weight), at<const void>(x), at<void>(y),     at<const float>(scale),
      at<const void>(bias),   at<float>(partials), at<int>(arrived), stride,
      tokens,                 rows,              columns,         bias_is_float};
  int error;
  {
    const py::gil_scoped_release release;
    error = linear_2to4::launch(arguments, plan, dtype, at<void>(stream));
  }
  check(error);
}

py::tuple limits(int device) {
  linear_2to4::Limits found{};
  check(linear_2to4::limits(device, &found));
  return py::make_tuple(found.sms, found.shared_block, found.shared_sm);
}

unsigned long long capture_of(uintptr_t stream) {
  unsigned long long capture = 0;
  check(linear_2to4::capture_of(at<void>(stream), &capture));
  return capture;
}

}  // namespace

void bind_linear(py::module_& module) {
  using linear_2to4::Plan;
  py::class_<Plan>(module, "Plan2to4")
      .def_readonly("token_tiles", &Plan::token_tiles)
      .def_readonly("warps", &Plan::warps)
      .def_readonly("stages", &Plan::stages)
      .def_readonly("blocks", &Plan::blocks)
      .def_readonly("shared", &Plan::shared)
      .def_property_readonly("partials", &Plan::partials);
  module.def("linear_2to4_plan", &plan, py::kw_only(), py::arg("tokens"), py::arg("rows"),
             py::arg("columns"), py::arg("sms"), py::arg("shared_block"), py::arg("shared_sm"));
  module.def("linear_2to4", &linear, py::kw_only(), py::arg("weight"), py::arg("x"), py::arg("y"),
             py::arg("scale"), py::arg("bias"), py::arg("partials"), py::arg("arrived"),
             py::arg("stride"), py::arg("tokens"), py::arg("rows"), py::arg("columns"),
             py::arg("bias_is_float"), py::arg("plan"), py::arg("dtype"), py::arg("stream"));
  module.def("device_limits", &limits);
  module.def("capture_of", &capture_of);
}
