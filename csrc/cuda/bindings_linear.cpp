// Python's view of linear_plan.h.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "linear_plan.h"
#include "select_mask.h"

namespace py = pybind11;

namespace {

void check(int error) {
  if (error == 0) return;
  throw std::runtime_error("linear: CUDA error " + std::to_string(error) + ", " +
                           cuda_error_text(error));
}

template <typename T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

linear::Plan plan(int64_t tokens, int64_t rows, int64_t columns, int chunk, int slot,
                  const std::array<int, 3>& device) {
  if (tokens < 1 || tokens > linear::MAX_TOKENS || rows < 1 || columns < 8 || columns % 8 ||
      slot < 1) {
    throw std::invalid_argument("linear: tokens, rows, columns or slot out of range");
  }
  const auto plan =
      linear::plan(tokens, rows, columns, chunk, slot, {device[0], device[1], device[2]});
  if (plan.blocks < 1) {
    throw std::invalid_argument("linear: W is too large, or shared memory too small");
  }
  return plan;
}

// `starts` of 0 says that W is 2:4, else it is a bitmap weight's; `x_scale` of not 0 that W
// is fp8.
void run(uintptr_t weight, uintptr_t starts, uintptr_t x, uintptr_t y, uintptr_t scale,
         uintptr_t x_scale, uintptr_t bias, uintptr_t partials, uintptr_t arrived, int64_t stride, int64_t tokens,
         int64_t rows, int64_t columns, bool bias_is_float, const linear::Plan& plan, int dtype,
         uintptr_t stream) {
  if (tokens < 1 || tokens > 8 * plan.token_tiles || stride % 8 || columns % 8 || dtype < 1 ||
      dtype > 2 || weight % 16 || x % 16 || partials % 16) {
    throw std::invalid_argument("linear: a size, stride or address does not fit the plan");
  }
  linear::Arguments arguments{};
  arguments.weight = at<const void>(weight);
  arguments.starts = at<const uint32_t>(starts);
  arguments.x = at<const void>(x);
  arguments.y = at<void>(y);
  arguments.scale = at<const float>(scale);
  arguments.x_scale = at<const float>(x_scale);
  arguments.bias = at<const void>(bias);
  arguments.partials = at<float>(partials);
  arguments.arrived = at<int>(arrived);
  arguments.stride = stride;
  arguments.tokens = tokens;
  arguments.rows = rows;
  arguments.columns = columns;
  arguments.bias_is_float = bias_is_float;
  int error;
  {
    const py::gil_scoped_release release;
    const auto launch = x_scale != 0  ? linear::launch_2to4_fp8
                        : starts == 0 ? linear::launch_2to4
                                      : linear::launch_bitmap;
    error = launch(arguments, plan, dtype, at<void>(stream));
  }
  check(error);
}

std::array<int, 3> limits(int number) {
  linear::Device found{};
  check(linear::device_of(number, &found));
  return {found.sms, found.shared_block, found.shared_sm};
}

unsigned long long capture_of(uintptr_t stream) {
  unsigned long long capture = 0;
  check(linear::capture_of(at<void>(stream), &capture));
  return capture;
}

}  // namespace

void bind_linear(py::module_& module) {
  using linear::Plan;
  py::class_<Plan>(module, "LinearPlan")
      .def_readonly("token_tiles", &Plan::token_tiles)
      .def_readonly("warps", &Plan::warps)
      .def_readonly("stages", &Plan::stages)
      .def_readonly("blocks", &Plan::blocks)
      .def_readonly("shared", &Plan::shared)
      .def_property_readonly("partials", &Plan::partials);
  module.def("linear_plan", &plan, py::kw_only(), py::arg("tokens"), py::arg("rows"),
             py::arg("columns"), py::arg("chunk"), py::arg("slot"), py::arg("device"));
  module.def("linear", &run, py::kw_only(), py::arg("weight"), py::arg("starts"), py::arg("x"),
             py::arg("y"), py::arg("scale"), py::arg("x_scale"), py::arg("bias"),
             py::arg("partials"), py::arg("arrived"), py::arg("stride"), py::arg("tokens"),
             py::arg("rows"), py::arg("columns"), py::arg("bias_is_float"), py::arg("plan"),
             py::arg("dtype"), py::arg("stream"));
  module.def("device_limits", &limits);
  module.def("capture_of", &capture_of);
}
