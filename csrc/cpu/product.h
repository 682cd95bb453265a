// The inner loop of SparseGPT's and the factor's products.
#pragma once

#include "lanes.h"

// VECTORS registers of L lanes, T in all, times N broadcast numbers: as many sums as fit.
template <int L>
struct Tiling {
  static constexpr int VECTORS = 3, T = VECTORS * L, N = L == 16 ? 8 : 4;
};

template <int L>
using Sums = F32<L>[Tiling<L>::N][Tiling<L>::VECTORS];

// sum[n][v] += sum_k left[k][v] right[k][n]. With AHEAD what lies AHEAD floats further on the right
// is asked for meanwhile.
template <int L, int64_t AHEAD = 0>
RAC_INLINE void add_product(const float* left, int64_t stride_left, const float* right,
                            int64_t stride_right, int64_t depth, Sums<L>& sum) {
  constexpr int V = Tiling<L>::VECTORS, N = Tiling<L>::N;
#pragma GCC unroll 2
  for (int64_t k = 0; k < depth; ++k) {
    if (AHEAD > 0) __builtin_prefetch(right + k * stride_right + AHEAD);
    F32<L> lanes[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      std::memcpy(&lanes[v], left + k * stride_left + v * L, sizeof(lanes[v]));
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const float scalar = right[k * stride_right + n];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) sum[n][v] += scalar * lanes[v];
    }
  }
}

// sum[n][v] = sum_k left[k][v] right[k][n]
template <int L>
RAC_INLINE void multiply(const float* left, int64_t stride_left, const float* right,
                         int64_t stride_right, int64_t depth, Sums<L>& sum) {
  constexpr int V = Tiling<L>::VECTORS, N = Tiling<L>::N;
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) sum[n][v] = F32<L>{};
  }
  add_product<L>(left, stride_left, right, stride_right, depth, sum);
}
