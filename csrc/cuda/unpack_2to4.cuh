// The kernel of the way back from 2:4 packing.
//
// Floor: 1.125 bytes of a 16-bit weight are read, 2 written. A lane loads 16 bytes of metadata, the
// positions of its four neighbours and itself in some rows, exchanges them for its own (tile.cuh),
// and then for each row loads 8 bytes of values and stores 16.
#pragma once

#include "packing.h"
#include "tile.cuh"

// Whether the first position of a group is below the second.
__device__ __forceinline__ bool ascending(uint32_t positions) { return 0x7310 >> positions & 1; }

// Eight bytes of values as sixteen of weights. In a selector of bytes, 4 is a zero.
template <int SIZE>
__device__ __forceinline__ uint4 expand(uint2 values, uint32_t positions) {
  uint32_t words[4];
  if (SIZE == 2) {
#pragma unroll
    for (int g = 0; g < 2; ++g) {
      const uint32_t first = positions >> 4 * g & 3, second = positions >> (4 * g + 2) & 3;
      const uint32_t bytes = 0x44444444 ^ 0x54u << 8 * first ^ 0x76u << 8 * second;
      const uint32_t pair = g == 0 ? values.x : values.y;
      words[2 * g] = __byte_perm(pair, 0, bytes & 0xffff);
      words[2 * g + 1] = __byte_perm(pair, 0, bytes >> 16);
    }
  } else {
#pragma unroll
    for (int g = 0; g < 4; ++g) {
      const uint32_t first = positions >> 4 * g & 3, second = positions >> (4 * g + 2) & 3;
      const uint32_t from = g % 2 == 0 ? 0x54 : 0x76;  // 4 ^ byte 0 or 2, 4 ^ byte 1 or 3
      const uint32_t bytes = 0x4444 ^ (from & 15) << 4 * first ^ (from >> 4) << 4 * second;
      words[g] = __byte_perm(g < 2 ? values.x : values.y, 0, bytes);
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

template <int SIZE>
__global__ void __launch_bounds__(THREADS) unpack_2to4_kernel(CudaUnpack job) {
  using T = Tile<SIZE>;
  const int lane = threadIdx.x % 32;
  const int64_t count = Task<SIZE>::count(job.columns, job.padded);
  const int64_t step = static_cast<int64_t>(gridDim.x) * WARPS;
  for (int64_t n = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32; n < count;
       n += step) {
    const Task<SIZE> task(n, job.columns, job.padded, lane);
    uint4 words{};
    if (task.inside) words = __ldcs(reinterpret_cast<const uint4*>(job.metadata + task.metadata));
    uint32_t held[STEPS];
    separate<SIZE>(words, held);
    transpose(held, lane);
    if (!task.inside) continue;  // all lanes are back by the next exchange
#pragma unroll
    for (int r = 0; r < STEPS; ++r) {
      uint2 loaded[T::PER_STEP];
#pragma unroll
      for (int p = 0; p < T::PER_STEP; ++p) {
        const int64_t at = (task.row + r + 8 * p) * job.columns + task.column;
        loaded[p] = __ldcs(reinterpret_cast<const uint2*>(job.values + at * SIZE / 2));
      }
#pragma unroll
      for (int p = 0; p < T::PER_STEP; ++p) {
        const int64_t row = task.row + r + 8 * p;
        const uint32_t positions = held[r] >> T::BITS * p;
        bool intact = true;
#pragma unroll
        for (int g = 0; g < T::BITS / 4; ++g) intact &= ascending(positions >> 4 * g & 15);
        if (!intact) lower(job.first, row);
        if (row < job.rows) {
          uint8_t* to = job.weight + (row * job.columns + task.column) * SIZE;
          *reinterpret_cast<uint4*>(to) = expand<SIZE>(loaded[p], positions);
        }
      }
    }
  }
}
