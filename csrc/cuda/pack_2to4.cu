// Launches of the kernel in pack_2to4.cuh.

#include <cuda_runtime.h>

#include "pack_2to4.cuh"

namespace {

template <Value V, Score S>
void launch(const CudaPack& job) {
  const int64_t tasks = Task<BYTES_OF<V>>::count(job.columns, job.padded);
  pack_2to4_kernel<V, S>
      <<<blocks_for(tasks), THREADS, 0, static_cast<cudaStream_t>(job.stream)>>>(job);
}

template <Value V>
void launch_halves(const CudaPack& job) {
  if (!job.prune) launch<V, Score::NONE>(job);
  else if (job.scale == nullptr) launch<V, Score::MAGNITUDE>(job);
  else launch<V, Score::SCALED>(job);
}

}  // namespace

int pack_2to4_cuda(const CudaPack& job) {
  if (job.padded == 0) return cudaSuccess;
  switch (job.value) {
    case Value::BFLOAT16: launch_halves<Value::BFLOAT16>(job); break;
    case Value::FLOAT16: launch_halves<Value::FLOAT16>(job); break;
    case Value::INT8: launch<Value::INT8, Score::NONE>(job); break;
    case Value::FLOAT8: launch<Value::FLOAT8, Score::NONE>(job); break;
  }
  return cudaGetLastError();
}
