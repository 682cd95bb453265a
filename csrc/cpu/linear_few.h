// linear_few: a tile of RB rows and TB tokens at a time, its sums in registers over a chunk of
// columns. A weight is decoded once for TB tokens; x of a chunk stays in the L2 cache.
//
// A sum is made of L partial sums, chunk after chunk: the same bits for any number of threads.
#pragma once

#include <algorithm>

#include "linear_values.h"

constexpr int64_t FEW_X_BYTES = 128 << 10;
constexpr int64_t FETCHED = 768;  // bytes of a row fetched before they are needed

template <int L>
RAC_INLINE float total(F32<L> sum) {
  float parts[L];
  std::memcpy(parts, &sum, sizeof(parts));
  for (int width = L / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) parts[i] += parts[i + width];
  }
  return parts[0];
}

template <typename Set, typename Packing, int RB, int TB>
RAC_INLINE void add_products(Packing (&reader)[RB], const uint32_t (&codes)[RB],
                             const float* const (&x)[TB], int64_t c,
                             F32<Set::L> (&sum)[RB][TB]) {
  constexpr int L = Set::L;
  F32<L> weight[RB];
#pragma GCC unroll 8
  for (int r = 0; r < RB; ++r) weight[r] = decode<Set>(reader[r], codes[r]);
#pragma GCC unroll 8
  for (int t = 0; t < TB; ++t) {
    F32<L> lanes;
    std::memcpy(&lanes, x[t] + c, sizeof(lanes));
#pragma GCC unroll 8
    for (int r = 0; r < RB; ++r) sum[r][t] += weight[r] * lanes;
  }
}

// y[token:token+TB, row:row+RB] over columns [first, last), added to what is there unless first = 0.
template <typename Set, typename Packing, int RB, int TB>
RAC_INLINE void few_tile(const SparseLinear& job, const LinearScratch& scratch, int64_t row,
                         int64_t token, int64_t first, int64_t last) {
  constexpr int L = Set::L;
  Packing reader[RB];
  const float* x[TB];  // missing tokens repeat the last one
  F32<L> sum[RB][TB] = {};
  for (int r = 0; r < RB; ++r) reader[r] = Packing::at(job, scratch, row + r, first);
  for (int t = 0; t < TB; ++t) x[t] = job.x + std::min(token + t, job.tokens - 1) * job.padded;
  const int64_t end = (last + 7) / 8 * 8;
  int64_t c = first;
  uint32_t codes[RB];
  for (; c + 32 <= end; c += 32) {
#pragma GCC unroll 8
    for (int r = 0; r < RB; ++r) {
      __builtin_prefetch(reader[r].values + FETCHED);
      std::memcpy(&codes[r], reader[r].codes, 4);
    }
#pragma GCC unroll 4
    for (int step = 0; step < 32; step += L) {
      add_products<Set>(reader, codes, x, c + step, sum);
#pragma GCC unroll 8
      for (int r = 0; r < RB; ++r) codes[r] = L == 8 ? codes[r] >> 8 : codes[r] >> 16;
    }
#pragma GCC unroll 8
    for (int r = 0; r < RB; ++r) reader[r].codes = Packing::after_four(reader[r].codes + 4);
  }
  for (; c < end; c += L) {  // what follows the last code is another row's
    for (int r = 0; r < RB; ++r) {
      codes[r] = 0;
      const int64_t bytes = std::min<int64_t>(L, end - c) / 8;
      std::memcpy(&codes[r], reader[r].codes, bytes);
      reader[r].codes += bytes;
    }
    add_products<Set>(reader, codes, x, c, sum);
  }
  for (int r = 0; r < RB; ++r) {
    Packing::leave(job, scratch, row + r, reader[r].values);
    for (int t = 0; t < TB && token + t < job.tokens; ++t) {
      float& y = job.y[(token + t) * job.rows + row + r];
      const float part = total<L>(sum[r][t]) + (first ? y : 0.0f);
      y = last < job.columns ? part : finished<typename Packing::Values>(job, row + r, part);
    }
  }
}

template <typename Set, typename Packing, int RB, int TB>
RAC_INLINE void few_rows(const SparseLinear& job, const LinearScratch& scratch) {
  const int64_t chunk = std::max<int64_t>(FEW_X_BYTES / (4 * TB) / 64 * 64, 64);
  const int64_t tiles = (job.rows + RB - 1) / RB;
  for (int64_t token = 0; token < job.tokens; token += TB) {
    if (job.offsets) {
#pragma omp for schedule(static)
      for (int64_t row = 0; row < job.rows; ++row) scratch.position[row] = job.offsets[row];
    }
    for (int64_t first = 0; first < job.columns; first += chunk) {
      const int64_t last = std::min(first + chunk, job.columns);
#pragma omp for schedule(static)
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t row = tile * RB;
        if (row + RB <= job.rows) {
          few_tile<Set, Packing, RB, TB>(job, scratch, row, token, first, last);
        } else {
          for (int64_t r = row; r < job.rows; ++r) {
            few_tile<Set, Packing, 1, TB>(job, scratch, r, token, first, last);
          }
        }
      }
    }
  }
}

template <typename Set>
RAC_INLINE void few(const SparseLinear& job, const LinearScratch& scratch) {
  with_packing(job, [&](auto* packing) {
    using Packing = std::remove_pointer_t<decltype(packing)>;
    if (job.tokens == 1) few_rows<Set, Packing, 4, 1>(job, scratch);
    else if (job.tokens == 2) few_rows<Set, Packing, 4, 2>(job, scratch);
    else if (job.tokens <= 4) few_rows<Set, Packing, 2, 4>(job, scratch);
    else few_rows<Set, Packing, 1, 8>(job, scratch);
  });
}
