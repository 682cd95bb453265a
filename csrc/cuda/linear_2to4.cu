#include "linear_launch.h"
// After linear_launch.h, for warp.h.
#include "linear_2to4_kernel.h"

namespace linear {

int launch_2to4(const Arguments& arguments, const Plan& plan, int dtype, void* stream) {
  return launch<Weight2to4>(arguments, plan, dtype, stream);
}

int device_of(int number, Device* found) {
  const cudaDeviceAttr names[] = {cudaDevAttrMultiProcessorCount,
                                  cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                  cudaDevAttrMaxSharedMemoryPerMultiprocessor};
  int* const values[] = {&found->sms, &found->shared_block, &found->shared_sm};
  for (int i = 0; i < 3; ++i) {
    const cudaError_t error = cudaDeviceGetAttribute(values[i], names[i], number);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

int capture_of(void* stream, unsigned long long* capture) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned long long id = 0;
  const cudaError_t error =
      cudaStreamGetCaptureInfo(static_cast<cudaStream_t>(stream), &status, &id);
  *capture = status == cudaStreamCaptureStatusActive ? id : 0;
  return error;
}

}  // namespace linear
