// n:m masks: prune the n lowest of every m neighbours, ties by lowest index.
//
// One read, one write. Two kernels:
//   vector: m divides the 16-byte load (m = 1, 2, 4, and 8 for 16-bit scores): a thread loads 16
//           bytes, ranks its whole groups in registers and stores 4 or 8 bytes of mask.
//   group:  any other m: a warp takes groups one after the other, a lane ranks the scores
//           lane, lane + 32, ... against the whole group, which it reads from the L1 cache.
// Scores become integers that order as the floats do (-0.0 as 0.0): one kernel for three dtypes.

#include <cuda_runtime.h>

#include "select_mask.h"

namespace {

constexpr int THREADS = 256;
constexpr int MAX_BLOCKS = 1 << 16;  // grid-stride loops take the rest

__device__ __forceinline__ int key_of(uint32_t bits) {
  const int value = bits == 0x80000000u ? 0 : static_cast<int>(bits);
  return value ^ ((value >> 31) & 0x7fffffff);
}

// bfloat16 and float16 alike: sign and magnitude in 16 bits.
__device__ __forceinline__ int key_of(uint16_t bits) {
  const int value = bits == 0x8000u ? 0 : static_cast<int16_t>(bits);
  return value ^ ((value >> 31) & 0x7fff);
}

// COUNT scores, a multiple of M, fill 16 bytes: uint32_t x 4 or uint16_t x 8.
template <typename Bits, int M>
__global__ void __launch_bounds__(THREADS)
select_mask_vector(const uint4* __restrict__ scores, uint8_t* __restrict__ keep, int64_t vectors,
                   int n) {
  constexpr int COUNT = 16 / sizeof(Bits);
  const int64_t step = static_cast<int64_t>(gridDim.x) * THREADS;
  for (int64_t v = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; v < vectors;
       v += step) {
    union {
      uint4 loaded;
      Bits bits[COUNT];
    } in;
    union {
      uint8_t bytes[COUNT];
      uint32_t words[COUNT / 4];
    } out;
    in.loaded = __ldcs(scores + v);  // read once: stream past the caches
    int keys[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; ++i) keys[i] = key_of(in.bits[i]);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int group = i / M * M;
      int before = 0;  // scores that are pruned sooner than this one
#pragma unroll
      for (int j = group; j < group + M; ++j) {
        before += j < i ? keys[j] <= keys[i] : keys[j] < keys[i];
      }
      out.bytes[i] = before >= n;
    }
#pragma unroll
    for (int i = 0; i < COUNT / 4; ++i) {
      reinterpret_cast<uint32_t*>(keep)[v * (COUNT / 4) + i] = out.words[i];
    }
  }
}

template <typename Bits>
__global__ void __launch_bounds__(THREADS)
select_mask_group(const Bits* __restrict__ scores, uint8_t* __restrict__ keep, int64_t groups,
                  int n, int m) {
  const int lane = threadIdx.x % 32;
  const int64_t step = static_cast<int64_t>(gridDim.x) * (THREADS / 32);
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * (THREADS / 32) + threadIdx.x / 32; g < groups;
       g += step) {
    const Bits* group = scores + g * m;
    for (int i = lane; i < m; i += 32) {
      const int key = key_of(group[i]);
      int before = 0;
      for (int j = 0; j < m; ++j) {
        const int other = key_of(group[j]);
        before += j < i ? other <= key : other < key;
      }
      keep[g * m + i] = before >= n;
    }
  }
}

unsigned grid_for(int64_t work, int64_t per_block) {
  const int64_t blocks = (work + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < MAX_BLOCKS ? blocks : MAX_BLOCKS);
}

template <typename Bits, int M>
void launch_vector(const void* scores, uint8_t* keep, int64_t vectors, int n, cudaStream_t stream) {
  select_mask_vector<Bits, M><<<grid_for(vectors, THREADS), THREADS, 0, stream>>>(
      static_cast<const uint4*>(scores), keep, vectors, n);
}

template <typename Bits>
void launch(const void* scores, uint8_t* keep, int64_t groups, int n, int m, cudaStream_t stream) {
  constexpr int COUNT = 16 / sizeof(Bits);
  const bool aligned = reinterpret_cast<uintptr_t>(scores) % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(keep) % 4 == 0;
  // What does not fill a last 16-byte vector goes to the other kernel.
  const int64_t vectors = aligned && COUNT % m == 0 ? groups * m / COUNT : 0;
  const int64_t done = vectors * COUNT;
  if (vectors > 0) {
    if (m == 1) launch_vector<Bits, 1>(scores, keep, vectors, n, stream);
    else if (m == 2) launch_vector<Bits, 2>(scores, keep, vectors, n, stream);
    else if (m == 4) launch_vector<Bits, 4>(scores, keep, vectors, n, stream);
    else launch_vector<Bits, COUNT>(scores, keep, vectors, n, stream);
  }
  const int64_t left = groups - done / m;
  if (left > 0) {
    select_mask_group<Bits><<<grid_for(left, THREADS / 32), THREADS, 0, stream>>>(
        static_cast<const Bits*>(scores) + done, keep + done, left, n, m);
  }
}

}  // namespace

int select_mask_cuda(const void* scores, uint8_t* keep, int64_t groups, int n, int m, int dtype,
                     void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (groups == 0) return cudaSuccess;
  if (dtype == 0) launch<uint32_t>(scores, keep, groups, n, m, on);
  else launch<uint16_t>(scores, keep, groups, n, m, on);
  return cudaGetLastError();
}

const char* cuda_error_text(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}
