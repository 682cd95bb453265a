// linear_sparse for a dense weight in 16 bits: what a sparse model keeps dense, its head above all, is
// read at memory speed, too. RB rows share the x that is loaded, TB tokens the weights.
#pragma once

#include <algorithm>

#include "linear_values.h"

constexpr int64_t FETCHED_DENSE = 2048;  // bytes of a row fetched before they are needed

// sum += L columns of RB rows times the x of TB tokens; `columns` < L of them at the end of a row.
template <typename Set, typename V, int RB, int TB, bool WHOLE>
RAC_INLINE void add_dense(const uint16_t* const (&rows)[RB], int64_t c, int64_t columns,
                          const float* x, F32<Set::L> (&sum)[RB][TB]) {
  constexpr int L = Set::L;
  F32<L> weight[RB];
#pragma GCC unroll 4
  for (int r = 0; r < RB; ++r) {
    if constexpr (WHOLE) {
      weight[r] = V::template load<Set>(rows[r] + c);
    } else {
      uint16_t part[L] = {};
      std::memcpy(part, rows[r] + c, columns * sizeof(part[0]));
      weight[r] = V::template load<Set>(part);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < TB; ++t) {
    F32<L> lanes;
    std::memcpy(&lanes, x + t * L, sizeof(lanes));
#pragma GCC unroll 4
    for (int r = 0; r < RB; ++r) sum[r][t] += weight[r] * lanes;
  }
}

// Where RB rows begin; those that there are not repeat the last.
template <int RB>
RAC_INLINE void dense_rows(const SparseLinear& job, int64_t row, const uint16_t* (&rows)[RB]) {
#pragma GCC unroll 4
  for (int r = 0; r < RB; ++r) {
    rows[r] = reinterpret_cast<const uint16_t*>(job.values) +
              std::min(row + r, job.rows - 1) * job.columns;
  }
}

// y[token : token + TB, row : row + RB]
template <typename Set, typename V, int RB, int TB>
RAC_INLINE void tile_dense(const SparseLinear& job, int64_t row, int64_t token, const float* x) {
  constexpr int L = Set::L, LINE = 32;  // columns of a cache line
  constexpr int PARTS = RB * TB <= 4 ? 2 : 1;  // sums in flight hide latency
  const uint16_t* rows[RB];
  dense_rows(job, row, rows);
  F32<L> sum[PARTS][RB][TB] = {};
  int64_t c = 0, ahead = FETCHED_DENSE / 2;
  for (; c + LINE <= job.columns; c += LINE, x += LINE * TB) {
    if (job.columns - c <= FETCHED_DENSE / 2) ahead = FETCHED_DENSE / 2 + (RB - 1) * job.columns;
#pragma GCC unroll 4
    for (int r = 0; r < RB; ++r) __builtin_prefetch(rows[r] + c + ahead);
#pragma GCC unroll 4
    for (int i = 0; i < LINE / L; ++i) {
      add_dense<Set, V, RB, TB, true>(rows, c + i * L, L, x + i * L * TB, sum[i % PARTS]);
    }
  }
  for (; c + L <= job.columns; c += L, x += L * TB) {
    add_dense<Set, V, RB, TB, true>(rows, c, L, x, sum[0]);
  }
  if (c < job.columns) add_dense<Set, V, RB, TB, false>(rows, c, job.columns - c, x, sum[0]);
  finish_rows<V, L>(job, row, token, sum);
}
