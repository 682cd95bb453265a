// The kernel of 2:4 packing, and of the selection of the two highest of four before it.
//
// Floor: 2 bytes of a 16-bit weight are read, 1.125 written. A lane loads 16 bytes, keeps two of
// every four in registers and stores 8; positions wait in registers until they fill 16 bytes of
// metadata (tile.cuh). -0.0 is zero: its bits are cleared.
#pragma once

#include "packing.h"
#include "tile.cuh"

// Positions of two of four where the bits of `mask` are the non-zeros, and where there are fewer
// than two, those that torch's conversion takes: the first, and in the upper bits the second.
__device__ __forceinline__ uint32_t positions_of(uint32_t mask) {
  return ((mask & 8 ? 0x4dce : 0x498e) >> (mask % 4 * 4)) & 15;
}

__device__ __forceinline__ uint32_t more_than_two(uint32_t mask) { return 0xe880 >> mask & 1; }

// A sign bit for each value of a word that is not zero.
template <Value V>
__device__ __forceinline__ uint32_t nonzero(uint32_t word) {
  if (BYTES_OF<V> == 2) return ((word & 0x7fff7fff) + 0x7fff7fff) & 0x80008000;
  const uint32_t magnitude = (word & 0x7f7f7f7f) + 0x7f7f7f7f;
  return (V == Value::INT8 ? magnitude | word : magnitude) & 0x80808080;
}

// All bits of the values whose sign bits are in `signs`.
template <int SIZE>
__device__ __forceinline__ uint32_t widened(uint32_t signs) {
  return signs | (signs - (signs >> (8 * SIZE - 1)));
}

// A score as the bits of a float >= 0: they order as the floats do.
template <Value V>
__device__ __forceinline__ int scaled(uint32_t magnitude, float scale) {
  float value;
  if (V == Value::BFLOAT16) {
    value = __uint_as_float(magnitude << 16);
  } else {
    // The bits of a float16, moved, are those of the value times 2^-112.
    value = __uint_as_float(magnitude << 13) * 0x1p112f;
    if (magnitude >= 0x7c00) value = __uint_as_float(__float_as_uint(value) | FLOAT_INFINITY);
  }
  return __float_as_uint(value * scale) & 0x7fffffff;
}

// Clear the two lowest scores of a group of two words, ties by lowest index; whether one was NaN.
template <Value V, Score S>
__device__ __forceinline__ bool prune(uint32_t& low, uint32_t& high, const float* scale) {
  const uint32_t halves[4] = {low & 0x7fff, low >> 16 & 0x7fff, high & 0x7fff, high >> 16 & 0x7fff};
  const int infinity = S == Score::SCALED ? FLOAT_INFINITY : INFINITY_OF<V>;
  int scores[4];
  bool nan = false;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    scores[i] = S == Score::SCALED ? scaled<V>(halves[i], scale[i]) : halves[i];
    nan |= scores[i] > infinity;
  }
  int before[4] = {};  // how many go before this one
#pragma unroll
  for (int i = 1; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < i; ++j) {
      const bool j_first = scores[j] <= scores[i];
      before[i] += j_first;
      before[j] += !j_first;
    }
  }
  low &= (before[0] >= 2 ? 0xffff : 0) | (before[1] >= 2 ? 0xffff0000 : 0);
  high &= (before[2] >= 2 ? 0xffff : 0) | (before[3] >= 2 ? 0xffff0000 : 0);
  return nan;
}

struct Kept {
  uint2 values;
  uint32_t positions;
  uint32_t refused;  // a bit for each group
};

// Two groups of 16-bit values.
template <Value V, Score S>
__device__ __forceinline__ Kept pack_halves(uint4 loaded, const float* scale) {
  uint32_t words[4] = {loaded.x, loaded.y, loaded.z, loaded.w}, values[2];
  Kept kept{};
#pragma unroll
  for (int g = 0; g < 2; ++g) {
    uint32_t low = words[2 * g], high = words[2 * g + 1], refused = 0;
    if (S != Score::NONE) refused = prune<V, S>(low, high, scale + 4 * g);
    const uint32_t in_low = nonzero<V>(low), in_high = nonzero<V>(high);
    const uint32_t mask = (in_low >> 15 & 1) | (in_low >> 30 & 2) | (in_high >> 13 & 4) |
                          (in_high >> 28 & 8);
    const uint32_t positions = positions_of(mask);
    // Bytes 2 f, 2 f + 1, 2 s, 2 s + 1 of the group.
    const uint32_t bytes = 0x1010 + positions % 4 * 0x22 + positions / 4 * 0x2200;
    values[g] = __byte_perm(low & widened<2>(in_low), high & widened<2>(in_high), bytes);
    kept.positions |= positions << 4 * g;
    kept.refused |= (S == Score::NONE ? more_than_two(mask) : refused) << g;
  }
  kept.values = {values[0], values[1]};
  return kept;
}

// Four groups of bytes.
template <Value V>
__device__ __forceinline__ Kept pack_bytes(uint4 loaded) {
  uint32_t words[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
  Kept kept{};
#pragma unroll
  for (int g = 0; g < 4; ++g) {
    const uint32_t in = nonzero<V>(words[g]);
    const uint32_t mask = (in >> 7 & 1) | (in >> 14 & 2) | (in >> 21 & 4) | (in >> 28 & 8);
    words[g] &= widened<1>(in);
    kept.positions |= positions_of(mask) << 4 * g;
    kept.refused |= more_than_two(mask) << g;
  }
  const auto pair = [&](int g) {
    const uint32_t a = kept.positions >> 4 * g & 15, b = kept.positions >> (4 * g + 4) & 15;
    const uint32_t bytes = a % 4 | a / 4 << 4 | (b % 4 + 4) << 8 | (b / 4 + 4) << 12;
    return __byte_perm(words[g], words[g + 1], bytes);
  };
  kept.values = {pair(0), pair(2)};
  return kept;
}

template <Value V, Score S>
__global__ void __launch_bounds__(THREADS) pack_2to4_kernel(CudaPack job) {
  constexpr int SIZE = BYTES_OF<V>;
  using T = Tile<SIZE>;
  const int lane = threadIdx.x % 32;
  const int64_t count = Task<SIZE>::count(job.columns, job.padded);
  const int64_t step = static_cast<int64_t>(gridDim.x) * WARPS;
  for (int64_t n = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32; n < count;
       n += step) {
    const Task<SIZE> task(n, job.columns, job.padded, lane);
    float scale[8] = {};
    if (S == Score::SCALED && task.inside) {
#pragma unroll
      for (int i = 0; i < 8; ++i) scale[i] = job.scale[task.column + i];
    }
    uint32_t held[STEPS] = {};
#pragma unroll
    for (int r = 0; r < STEPS; ++r) {
      uint4 loaded[T::PER_STEP];
#pragma unroll
      for (int p = 0; p < T::PER_STEP; ++p) {
        const int64_t row = task.row + r + 8 * p;
        loaded[p] = uint4{};
        if (task.inside && row < job.rows) {
          const uint8_t* from = job.weight + row * job.stride_bytes + task.column * SIZE;
          loaded[p] = __ldcs(reinterpret_cast<const uint4*>(from));  // once: past the caches
        }
      }
#pragma unroll
      for (int p = 0; p < T::PER_STEP; ++p) {
        const int64_t row = task.row + r + 8 * p;
        Kept kept;
        if constexpr (SIZE == 2) kept = pack_halves<V, S>(loaded[p], scale);
        else kept = pack_bytes<V>(loaded[p]);
        held[r] |= kept.positions << T::BITS * p;
        if (kept.refused != 0) {
          lower(job.first, row * job.columns + task.column + 4 * (__ffs(kept.refused) - 1));
        }
        if (task.inside) {
          uint8_t* to = job.values + (row * job.columns + task.column) * SIZE / 2;
          *reinterpret_cast<uint2*>(to) = kept.values;
        }
      }
    }
    transpose(held, lane);
    if (task.inside) {
      *reinterpret_cast<uint4*>(job.metadata + task.metadata) = interleaved<SIZE>(held);
    }
  }
}
