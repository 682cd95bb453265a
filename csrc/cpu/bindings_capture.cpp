// The part of rac_kernels._C_cpu that fills staging rings; see bindings.cpp.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>

#include "addresses.h"
#include "decode_attention.h"

namespace py = pybind11;

namespace {

void check(int64_t batch, int64_t features, int dtype) {
  if (batch < 0 || features < 1 || dtype < 0 || dtype > 1) {
    throw std::invalid_argument("capture: batch, features or dtype out of range");
  }
}

void capture_at(uintptr_t x, int64_t stride_bytes, int64_t batch, int64_t row_bytes,
                uintptr_t rows, uintptr_t state, int64_t slots, uintptr_t active) {
  check(batch, row_bytes, 0);
  capture(ring_at(rows, state, slots, active), reinterpret_cast<const uint8_t*>(x), stride_bytes,
          batch, row_bytes);
}

void rmsnorm_capture_at(uintptr_t x, int64_t stride_x, uintptr_t weight, uintptr_t y,
                        int64_t batch, int64_t features, float eps, int dtype, int threads,
                        uintptr_t rows, uintptr_t state, int64_t slots, uintptr_t active) {
  check(batch, features, dtype);
  const RmsNorm job{reinterpret_cast<const void*>(x),
                    stride_x,
                    reinterpret_cast<const void*>(weight),
                    reinterpret_cast<void*>(y),
                    batch,
                    features,
                    eps,
                    dtype,
                    threads};
  const py::gil_scoped_release release;
  rmsnorm_capture(job, ring_at(rows, state, slots, active));
}

void swiglu_capture_at(uintptr_t gate, int64_t stride_gate, uintptr_t up, int64_t stride_up,
                       uintptr_t y, int64_t batch, int64_t features, int dtype, int threads,
                       uintptr_t rows, uintptr_t state, int64_t slots, uintptr_t active) {
  check(batch, features, dtype);
  const Swiglu job{reinterpret_cast<const void*>(gate),
                   stride_gate,
                   reinterpret_cast<const void*>(up),
                   stride_up,
                   reinterpret_cast<void*>(y),
                   batch,
                   features,
                   dtype,
                   threads};
  const py::gil_scoped_release release;
  swiglu_capture(job, ring_at(rows, state, slots, active));
}

// `shape` is batch, groups, per_group, columns, width.
void decode_attention_at(uintptr_t query, int64_t stride_query, uintptr_t key, int64_t stride_key,
                         uintptr_t value, int64_t stride_value, uintptr_t cosine, uintptr_t sine,
                         int64_t stride_rotary, uintptr_t keys,
                         const std::array<int64_t, 3>& strides_keys, uintptr_t values,
                         const std::array<int64_t, 3>& strides_values, uintptr_t mask,
                         int64_t stride_mask, uintptr_t output, float scaling,
                         const std::array<int64_t, 5>& shape, int dtype, int threads,
                         uintptr_t rows, uintptr_t state, int64_t slots, uintptr_t active) {
  check(shape[0], shape[4], dtype);
  if (shape[1] < 1 || shape[2] < 1 || shape[3] < 1 || threads < 1) {
    throw std::invalid_argument("decode_attention: sizes or threads out of range");
  }
  const DecodeAttention job{reinterpret_cast<const void*>(query),
                            stride_query,
                            reinterpret_cast<const void*>(key),
                            stride_key,
                            reinterpret_cast<const void*>(value),
                            stride_value,
                            reinterpret_cast<const void*>(cosine),
                            reinterpret_cast<const void*>(sine),
                            stride_rotary,
                            cache_at(keys, strides_keys),
                            cache_at(values, strides_values),
                            reinterpret_cast<const uint8_t*>(mask),
                            stride_mask,
                            reinterpret_cast<void*>(output),
                            scaling,
                            shape[0],
                            shape[1],
                            shape[2],
                            shape[3],
                            shape[4],
                            dtype,
                            threads};
  const py::gil_scoped_release release;
  decode_attention(job, ring_at(rows, state, slots, active));
}

}  // namespace

void bind_capture(py::module_& module) {
  // By position, without keywords: these are called hundreds of times a decode step.
  module.def("capture", &capture_at);
  module.def("rmsnorm_capture", &rmsnorm_capture_at);
  module.def("swiglu_capture", &swiglu_capture_at);
  module.def("decode_attention", &decode_attention_at);
}
