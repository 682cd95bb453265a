#include "linear_2to4.h"

#include <cuda_runtime.h>

#include "warp.h"
// After warp.h, whose place a test's own may take.
#include "linear_2to4_kernel.h"

namespace linear_2to4 {

namespace {

template <typename Half, int TILES, int WARPS>
cudaError_t run(const Arguments& arguments, const Plan& plan, cudaStream_t stream) {
  const auto function = &kernel<Half, TILES, WARPS>;
  const cudaError_t error =
      cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared);
  if (error != cudaSuccess) return error;
  function<<<plan.blocks, 32 * WARPS, plan.shared, stream>>>(arguments, plan.stages);
  return cudaGetLastError();
}

template <typename Half>
cudaError_t choose(const Arguments& arguments, const Plan& plan, cudaStream_t stream) {
  if (plan.token_tiles == 1) return run<Half, 1, 4>(arguments, plan, stream);
  if (plan.token_tiles == 2) return run<Half, 2, 4>(arguments, plan, stream);
  if (plan.token_tiles == 4) return run<Half, 4, 4>(arguments, plan, stream);
  if (plan.warps == 4) return run<Half, 8, 4>(arguments, plan, stream);
  return run<Half, 8, 8>(arguments, plan, stream);
}

}  // namespace

int launch(const Arguments& arguments, const Plan& plan, int dtype, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (arguments.tokens == 0 || arguments.rows == 0) return cudaSuccess;
  return dtype == 1 ? choose<BFloat16>(arguments, plan, on) : choose<Float16>(arguments, plan, on);
}

int limits(int device, Limits* found) {
  const cudaDeviceAttr names[] = {cudaDevAttrMultiProcessorCount,
                                  cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                  cudaDevAttrMaxSharedMemoryPerMultiprocessor};
  int* const values[] = {&found->sms, &found->shared_block, &found->shared_sm};
  for (int i = 0; i < 3; ++i) {
    const cudaError_t error = cudaDeviceGetAttribute(values[i], names[i], device);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

int capture_of(void* stream, unsigned long long* capture) {
  cudaStreamCaptureStatus status;
  unsigned long long id = 0;
  const cudaError_t error =
      cudaStreamGetCaptureInfo(static_cast<cudaStream_t>(stream), &status, &id);
  *capture = status == cudaStreamCaptureStatusActive ? id : 0;
  return error;
}

}  // namespace linear_2to4
