// Launches of the kernel in unpack_2to4.cuh.

#include <cuda_runtime.h>

#include "unpack_2to4.cuh"

namespace {

template <int SIZE>
void launch(const CudaUnpack& job) {
  const int64_t tasks = Task<SIZE>::count(job.columns, job.padded);
  unpack_2to4_kernel<SIZE>
      <<<blocks_for(tasks), THREADS, 0, static_cast<cudaStream_t>(job.stream)>>>(job);
}

}  // namespace

int unpack_2to4_cuda(const CudaUnpack& job) {
  if (job.padded == 0) return cudaSuccess;
  if (bytes_of(job.value) == 2) launch<2>(job);
  else launch<1>(job);
  return cudaGetLastError();
}
