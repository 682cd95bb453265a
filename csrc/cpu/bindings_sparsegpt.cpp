// The part of the factor and of SparseGPT in rac_kernels._C_cpu; see bindings.cpp.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>

#include "factor_hessian.h"
#include "sparsegpt.h"

namespace py = pybind11;

namespace {

// weight, stride, rows, keep, out
using MatrixAddress = std::tuple<uintptr_t, int64_t, int64_t, uintptr_t, uintptr_t>;

Rule rule_of(const std::string& name) {
  if (name == "given") return Rule::GIVEN;
  if (name == "count") return Rule::COUNT;
  if (name == "threshold") return Rule::THRESHOLD;
  if (name == "n:m") return Rule::GROUPS;
  throw std::invalid_argument("sparsegpt: no rule " + name);
}

std::vector<double> sparsegpt_at(const std::vector<MatrixAddress>& matrices, uintptr_t lower,
                                 int64_t stride_lower, uintptr_t dead, int64_t columns,
                                 int64_t block_size, int dtype, const std::string& rule, bool grow,
                                 double sparsity, int n, int m, int threads) {
  SparseGPT job{{},
                reinterpret_cast<const float*>(lower),
                stride_lower,
                reinterpret_cast<const uint8_t*>(dead),
                columns,
                block_size,
                dtype,
                rule_of(rule),
                grow,
                sparsity,
                n,
                m,
                threads};
  if (columns < 0 || block_size < 1 || dtype < 0 || dtype > 2 || threads < 1) {
    throw std::invalid_argument("sparsegpt: columns, block_size, dtype or threads");
  }
  if (!(sparsity >= 0 && sparsity <= 1)) throw std::invalid_argument("sparsegpt: sparsity");
  if (job.rule == Rule::GROUPS &&
      (m < 1 || n < 0 || n > m || columns % m != 0 || block_size % m != 0)) {
    throw std::invalid_argument("sparsegpt: columns are not a multiple of m");
  }
  for (const auto& [weight, stride, rows, keep, out] : matrices) {
    if (rows < 0 || rows > std::numeric_limits<int32_t>::max() / std::min(block_size, columns + 1)) {
      throw std::invalid_argument("sparsegpt: more than 2^31 weights in a block");
    }
    job.matrices.push_back({reinterpret_cast<const void*>(weight), stride, rows,
                            reinterpret_cast<uint8_t*>(keep), reinterpret_cast<float*>(out)});
  }
  const py::gil_scoped_release release;
  return sparsegpt(job);
}

void copy_lower_at(uintptr_t from, int64_t stride, uintptr_t to, int64_t columns, int threads) {
  if (columns < 1 || (columns > 1 && stride < columns) || threads < 1) {
    throw std::invalid_argument("copy_lower: stride, columns or threads");
  }
  const py::gil_scoped_release release;
  copy_lower(reinterpret_cast<const float*>(from), stride, reinterpret_cast<float*>(to), columns,
             threads);
}

std::tuple<int64_t, double> reversed_cholesky_at(uintptr_t matrix, int64_t stride,
                                                 int64_t columns, int threads) {
  if (columns < 1 || (columns > 1 && stride < columns) || threads < 1) {
    throw std::invalid_argument("reversed_cholesky: stride, columns or threads");
  }
  const py::gil_scoped_release release;
  const Pivot failed =
      reversed_cholesky(reinterpret_cast<float*>(matrix), stride, columns, threads);
  return {failed.column, failed.value};
}

}  // namespace

void bind_sparsegpt(py::module_& module) {
  module.def("copy_lower", &copy_lower_at, py::kw_only(), py::arg("from_"), py::arg("stride"),
             py::arg("to"), py::arg("columns"), py::arg("threads"));
  module.def("reversed_cholesky", &reversed_cholesky_at, py::kw_only(), py::arg("matrix"),
             py::arg("stride"), py::arg("columns"), py::arg("threads"));
  module.def("tile_rows", &tile_rows);
  module.def("sparsegpt", &sparsegpt_at, py::kw_only(), py::arg("matrices"), py::arg("lower"),
             py::arg("stride_lower"), py::arg("dead"), py::arg("columns"), py::arg("block_size"),
             py::arg("dtype"), py::arg("rule"), py::arg("grow"), py::arg("sparsity"), py::arg("n"),
             py::arg("m"), py::arg("threads"));
}
