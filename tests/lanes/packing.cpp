// The CUDA kernels of 2:4 packing on threads, for test_pack_cuda_lanes.py.

#include "cuda_on_threads.h"

#include "../../csrc/cuda/pack_2to4.cuh"
#include "../../csrc/cuda/unpack_2to4.cuh"

template <Value V, Score S>
void pack(const CudaPack& job, unsigned blocks) {
  launch_on_threads(blocks, WARPS, [&] { pack_2to4_kernel<V, S>(job); });
}

template <Value V>
void pack_halves(const CudaPack& job, unsigned blocks) {
  if (!job.prune) pack<V, Score::NONE>(job, blocks);
  else if (job.scale == nullptr) pack<V, Score::MAGNITUDE>(job, blocks);
  else pack<V, Score::SCALED>(job, blocks);
}

extern "C" int64_t pack_2to4(const uint8_t* weight, int64_t stride_bytes, int64_t rows,
                             int64_t columns, int64_t padded, uint8_t* values, uint8_t* metadata,
                             const float* scale, int value, int prune, unsigned blocks) {
  int64_t first = INT64_MAX;
  const CudaPack job{weight,   stride_bytes, rows,  columns,                   padded,
                     values,   metadata,     scale, static_cast<Value>(value), prune != 0,
                     &first,   nullptr};
  switch (job.value) {
    case Value::BFLOAT16: pack_halves<Value::BFLOAT16>(job, blocks); break;
    case Value::FLOAT16: pack_halves<Value::FLOAT16>(job, blocks); break;
    case Value::INT8: pack<Value::INT8, Score::NONE>(job, blocks); break;
    case Value::FLOAT8: pack<Value::FLOAT8, Score::NONE>(job, blocks); break;
  }
  return first;
}

extern "C" int64_t unpack_2to4(const uint8_t* values, const uint8_t* metadata, int64_t rows,
                               int64_t columns, int64_t padded, uint8_t* weight, int value,
                               unsigned blocks) {
  int64_t first = INT64_MAX;
  const CudaUnpack job{values, metadata, rows, columns, padded, weight, static_cast<Value>(value),
                       &first, nullptr};
  launch_on_threads(blocks, WARPS, [&] {
    if (bytes_of(job.value) == 2) unpack_2to4_kernel<2>(job);
    else unpack_2to4_kernel<1>(job);
  });
  return first;
}
