// linear_few: for one or two tokens a row of W at a time, from its first value to its last, so that
// memory is read in one stream. For more, RB = 2 rows against TB = 4 tokens, whose x, loaded once
// for both rows, mostly fits the L1 cache; a tile of rows stays in the L2 cache and is decoded again
// for the next tokens. x is held as [C / L][TB][L] for every TB tokens: one register addresses it.
//
// A sum is made of PARTS * L partial sums: the same bits for any number of threads.
#pragma once

#include <algorithm>

#include "linear_values.h"

constexpr int64_t FETCHED = 2048;    // bytes fetched before they are needed
constexpr int64_t TILE_BYTES = 96 << 10;  // of W, that stay in the L2 cache beside x

template <int L>
RAC_INLINE float total(F32<L> sum) {
  float parts[L];
  std::memcpy(parts, &sum, sizeof(parts));
  for (int width = L / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) parts[i] += parts[i + width];
  }
  return parts[0];
}

// x of tokens [token, token + TB) in the order of few_row; tokens that there are not repeat the last.
template <int L, int TB>
RAC_INLINE void interleave(const SparseLinear& job, int64_t token, float* to) {
  for (int64_t t = 0; t < TB; ++t) {
    const float* from = job.x + std::min(token + t, job.tokens - 1) * job.padded;
    for (int64_t c = 0; c < job.padded; c += L) {
      std::memcpy(to + c * TB + t * L, from + c, L * sizeof(float));
    }
  }
}

// sum[r][t] += the next L columns of each row, whose codes these are, times those of token t.
template <typename Set, typename Packing, int RB, int TB>
RAC_INLINE void add_products(Packing (&reader)[RB], const uint32_t (&codes)[RB], const float* x,
                             F32<Set::L> (&sum)[RB][TB]) {
  F32<Set::L> weight[RB];
#pragma GCC unroll 2
  for (int r = 0; r < RB; ++r) weight[r] = decode<Set>(reader[r], codes[r]);
#pragma GCC unroll 4
  for (int t = 0; t < TB; ++t) {
    F32<Set::L> lanes;
    std::memcpy(&lanes, x + t * Set::L, sizeof(lanes));
#pragma GCC unroll 2
    for (int r = 0; r < RB; ++r) sum[r][t] += weight[r] * lanes;
  }
}

// y[token : token + TB, row : row + RB]
template <typename Set, typename Packing, int RB, int TB>
RAC_INLINE void few_tile(const SparseLinear& job, int64_t row, int64_t token, const float* x) {
  constexpr int L = Set::L;
  constexpr int PARTS = RB * TB == 1 ? 4 : RB * TB == 2 ? 2 : 1;  // sums in flight hide latency
  Packing reader[RB];
#pragma GCC unroll 2
  for (int r = 0; r < RB; ++r) reader[r] = Packing::begin(job, row + r);
  F32<L> sum[PARTS][RB][TB] = {};
  uint32_t codes[RB];
  const int64_t end = (job.columns + 7) / 8 * 8;
  int64_t c = 0;
  for (; c + 64 <= end; c += 64, x += 64 * TB) {
#pragma GCC unroll 2
    for (int r = 0; r < RB; ++r) __builtin_prefetch(reader[r].values + FETCHED);
#pragma GCC unroll 2
    for (int half = 0; half < 64; half += 32) {
#pragma GCC unroll 2
      for (int r = 0; r < RB; ++r) {
        std::memcpy(&codes[r], reader[r].codes, 4);
        reader[r].codes = Packing::after_four(reader[r].codes + 4);
      }
#pragma GCC unroll 4
      for (int step = 0; step < 32; step += L) {
        add_products<Set>(reader, codes, x + (half + step) * TB, sum[step / L % PARTS]);
#pragma GCC unroll 2
        for (int r = 0; r < RB; ++r) codes[r] = L == 8 ? codes[r] >> 8 : codes[r] >> 16;
      }
    }
  }
#pragma GCC unroll 1
  for (; c < end; c += L, x += L * TB) {
    const int64_t bytes = std::min<int64_t>(L, end - c) / 8;
#pragma GCC unroll 2
    for (int r = 0; r < RB; ++r) {
      codes[r] = 0;  // what follows the row's last code is another row's
      std::memcpy(&codes[r], reader[r].codes, bytes);
      reader[r].codes += bytes;
      if (c % 32 + L == 32) reader[r].codes = Packing::after_four(reader[r].codes);
    }
    add_products<Set>(reader, codes, x, sum[0]);
  }
  float totals[TB][RB];  // an index that is not constant would put the sums into memory
#pragma GCC unroll 4
  for (int t = 0; t < TB; ++t) {
#pragma GCC unroll 2
    for (int r = 0; r < RB; ++r) {
#pragma GCC unroll 4
      for (int p = 1; p < PARTS; ++p) sum[0][r][t] += sum[p][r][t];
      totals[t][r] = total<L>(sum[0][r][t]);
    }
  }
  for (int t = 0; t < TB && token + t < job.tokens; ++t) {
    for (int r = 0; r < RB; ++r) {
      job.y[(token + t) * job.rows + row + r] =
          finished<typename Packing::Values>(job, row + r, totals[t][r]);
    }
  }
}

template <typename Set, typename Packing, int RB, int TB>
RAC_INLINE void few_rows(const SparseLinear& job, float* panels) {
  const int64_t groups = (job.tokens + TB - 1) / TB, size = TB * job.padded;
  if (TB > 1) {
#pragma omp for schedule(static)
    for (int64_t group = 0; group < groups; ++group) {
      interleave<Set::L, TB>(job, group * TB, panels + group * size);
    }
  }
  const int64_t fit = std::clamp<int64_t>(TILE_BYTES / job.columns, 2, 64) / 2 * 2;
  const int64_t rows = groups > 1 ? fit : RB;  // of a tile
#pragma omp for schedule(static)
  for (int64_t tile = 0; tile < job.rows; tile += rows) {
    const int64_t end = std::min(tile + rows, job.rows);
    for (int64_t group = 0; group < groups; ++group) {
      const float* x = TB > 1 ? panels + group * size : job.x;
      int64_t row = tile;
      for (; row + RB <= end; row += RB) {
        few_tile<Set, Packing, RB, TB>(job, row, group * TB, x);
      }
      for (; row < end; ++row) few_tile<Set, Packing, 1, TB>(job, row, group * TB, x);
    }
  }
}

template <typename Set>
RAC_INLINE void few(const SparseLinear& job, const LinearScratch& scratch) {
  with_packing(job, [&](auto* packing) {
    using Packing = std::remove_pointer_t<decltype(packing)>;
    if (job.tokens == 1) few_rows<Set, Packing, 1, 1>(job, scratch.panels);
    else if (job.tokens == 2) few_rows<Set, Packing, 1, 2>(job, scratch.panels);
    else few_rows<Set, Packing, 2, 4>(job, scratch.panels);
  });
}
