// The part of rac_kernels._C_cpu that runs whole decoder layers; see bindings.cpp.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "addresses.h"
#include "decoder_layer.h"

namespace py = pybind11;

namespace {

using Norm = std::pair<uintptr_t, float>;                           // address, eps
using Linear = std::tuple<LinearWeight, uintptr_t, bool>;           // weight, bias, rounds_x
using Staging = std::tuple<uintptr_t, uintptr_t, int64_t, uintptr_t>;  // of ring_at

NormWeight norm_at(const Norm& norm) {
  return {reinterpret_cast<const void*>(norm.first), norm.second};
}

Projection projection_at(const Linear& linear) {
  const auto& [weight, bias, rounds_x] = linear;
  if (rounds_x && weight.value != Value::FLOAT8) {
    throw std::invalid_argument("DecoderLayer: x is rounded to fp8 beside fp8 alone");
  }
  return {weight, reinterpret_cast<const float*>(bias), rounds_x};
}

DecoderLayer layer_at(const std::array<Norm, 4>& norms, const std::array<Linear, 4>& linears,
                      int64_t groups, int64_t per_group, int64_t width, float scaling, int dtype) {
  const DecoderLayer layer{norm_at(norms[0]),         norm_at(norms[1]),
                           norm_at(norms[2]),         norm_at(norms[3]),
                           projection_at(linears[0]), projection_at(linears[1]),
                           projection_at(linears[2]), projection_at(linears[3]),
                           groups,                    per_group,
                           width,                     scaling,
                           dtype};
  const int64_t heads = groups * per_group * width, hidden = layer.hidden();
  const bool fit = layer.qkv.weight.rows == heads + 2 * groups * width &&
                   layer.output.weight.columns == heads && layer.output.weight.rows == hidden &&
                   layer.gate_up.weight.columns == hidden && layer.gate_up.weight.rows % 2 == 0 &&
                   layer.down.weight.columns == layer.features() &&
                   layer.down.weight.rows == hidden;
  if (!fit || groups < 1 || per_group < 1 || width < 1 || dtype < 0 || dtype > 1) {
    throw std::invalid_argument("DecoderLayer: sizes do not fit, or dtype out of range");
  }
  return layer;
}

// Where the keys, or the values, of every layer are, and their strides, the same in all.
using Caches = std::pair<std::vector<uintptr_t>, std::array<int64_t, 3>>;

void decode_layers_at(const std::vector<const DecoderLayer*>& layers, uintptr_t x, uintptr_t y,
                      uintptr_t cosine, uintptr_t sine, int64_t stride_rotary, const Caches& keys,
                      const Caches& values, int64_t first, uintptr_t mask, int64_t stride_mask,
                      int64_t batch, int64_t columns, int threads,
                      const std::vector<Staging>& rings) {
  if (batch < 1 || first < 0 || columns < 1 || threads < 1) {
    throw std::invalid_argument("DecoderLayer: batch, columns or threads out of range");
  }
  const size_t count = layers.size();
  if (count == 0 || keys.first.size() != count || values.first.size() != count ||
      (rings.size() != 0 && rings.size() != 4 * count)) {
    throw std::invalid_argument("DecoderLayer: as many caches as layers, four rings each or none");
  }
  std::vector<LayerStep> steps;
  for (size_t i = 0; i < count; ++i) {
    if (layers[i]->hidden() != layers[0]->hidden() || layers[i]->dtype != layers[0]->dtype ||
        layers[i]->width != layers[0]->width) {
      throw std::invalid_argument("DecoderLayer: hidden, width or dtype differ between layers");
    }
    const int64_t size = layers[i]->dtype == 0 ? 4 : 2;
    const auto cache = [&](const Caches& caches) {
      return cache_at(caches.first[i] + first * caches.second[2] * size, caches.second);
    };
    steps.push_back({reinterpret_cast<const void*>(i == 0 ? x : y),
                     reinterpret_cast<void*>(y),
                     reinterpret_cast<const void*>(cosine),
                     reinterpret_cast<const void*>(sine),
                     stride_rotary,
                     cache(keys),
                     cache(values),
                     reinterpret_cast<const uint8_t*>(mask),
                     stride_mask,
                     batch,
                     columns,
                     threads,
                     {}});
    for (size_t k = 0; k < 4 && !rings.empty(); ++k) {
      steps[i].rings[k] = std::apply(ring_at, rings[4 * i + k]);
    }
  }
  const py::gil_scoped_release release;
  decode_layers(layers, steps);
}

}  // namespace

void bind_layer(py::module_& module) {
  py::class_<DecoderLayer>(module, "DecoderLayer", py::module_local())
      .def(py::init(&layer_at));
  module.def("decode_layers", &decode_layers_at);
}
