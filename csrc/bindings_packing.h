// The arguments that packing has in both modules, by name; what a module adds comes last.
#pragma once

#include <pybind11/pybind11.h>

#include "packing.h"

template <typename Pack, typename Unpack, typename... Added>
void define_packing(pybind11::module_& module, Pack pack, Unpack unpack, Added... added) {
  using pybind11::arg;
  module.def("pack_2to4", pack, pybind11::kw_only(), arg("weight"), arg("stride_bytes"),
             arg("rows"), arg("columns"), arg("padded"), arg("values"), arg("metadata"),
             arg("scale"), arg("value"), arg("prune"), added...);
  module.def("unpack_2to4", unpack, pybind11::kw_only(), arg("values"), arg("metadata"),
             arg("rows"), arg("columns"), arg("padded"), arg("weight"), arg("value"), added...);
}
