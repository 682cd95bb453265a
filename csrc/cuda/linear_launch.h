// Chooses the kernel of a plan and launches it; for the .cu file of each format.
#pragma once

#include <cuda_runtime.h>

#include "warp.h"
// After warp.h, whose place a test's own may take.
#include "linear_tile.h"

namespace linear {

template <typename Weight, typename Half, int TILES, int WARPS>
cudaError_t run(const Arguments& arguments, const Plan& plan, cudaStream_t stream) {
  const auto function = &kernel<Weight, Half, TILES, WARPS>;
  const cudaError_t error =
      cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared);
  if (error != cudaSuccess) return error;
  function<<<plan.blocks, 32 * WARPS, plan.shared, stream>>>(arguments, plan.stages, plan.slot);
  return cudaGetLastError();
}

template <typename Weight, typename Half>
cudaError_t choose(const Arguments& arguments, const Plan& plan, cudaStream_t stream) {
  if (plan.token_tiles == 1) return run<Weight, Half, 1, 4>(arguments, plan, stream);
  if (plan.token_tiles == 2) return run<Weight, Half, 2, 4>(arguments, plan, stream);
  if (plan.token_tiles == 4) return run<Weight, Half, 4, 4>(arguments, plan, stream);
  if (plan.warps == 4) return run<Weight, Half, 8, 4>(arguments, plan, stream);
  return run<Weight, Half, 8, 8>(arguments, plan, stream);
}

template <typename Weight>
int launch(const Arguments& arguments, const Plan& plan, int dtype, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  return dtype == 1 ? choose<Weight, BFloat16>(arguments, plan, on)
                    : choose<Weight, Float16>(arguments, plan, on);
}

}  // namespace linear
