// linear_few: a row of W at a time against up to 8 tokens, from its first value to its last: memory
// is read in one stream, and a weight is decoded once for those tokens. For more tokens a tile of
// rows stays in the caches and is decoded again.
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

// sum[t] += the next L columns of a row, whose codes these are, times those of x[t] from c on.
template <typename Set, typename Packing, int TB>
RAC_INLINE void add_products(Packing& reader, uint32_t codes, const float* const (&x)[TB],
                             int64_t c, F32<Set::L> (&sum)[TB]) {
  const F32<Set::L> weight = decode<Set>(reader, codes);
#pragma GCC unroll 8
  for (int t = 0; t < TB; ++t) {
    F32<Set::L> lanes;
    std::memcpy(&lanes, x[t] + c, sizeof(lanes));
    sum[t] += weight * lanes;
  }
}

// y[token : token + TB, row]
template <typename Set, typename Packing, int TB>
RAC_INLINE void few_row(const SparseLinear& job, int64_t row, int64_t token) {
  constexpr int L = Set::L;
  constexpr int PARTS = TB == 1 ? 4 : TB == 2 ? 2 : 1;  // sums in flight hide the latency
  Packing reader = Packing::begin(job, row);
  const float* x[TB];  // missing tokens repeat the last one
  for (int t = 0; t < TB; ++t) x[t] = job.x + std::min(token + t, job.tokens - 1) * job.padded;
  F32<L> sum[PARTS][TB] = {};
  const int64_t end = (job.columns + 7) / 8 * 8;
  int64_t c = 0;
  for (; c + 64 <= end; c += 64) {
    __builtin_prefetch(reader.values + FETCHED);
#pragma GCC unroll 2
    for (int half = 0; half < 64; half += 32) {
      uint32_t codes;
      std::memcpy(&codes, reader.codes, 4);
      reader.codes = Packing::after_four(reader.codes + 4);
#pragma GCC unroll 4
      for (int step = 0; step < 32; step += L) {
        add_products<Set>(reader, codes, x, c + half + step, sum[step / L % PARTS]);
        codes = L == 8 ? codes >> 8 : codes >> 16;
      }
    }
  }
  for (; c < end; c += L) {
    uint32_t codes = 0;  // what follows the row's last code is another row's
    const int64_t bytes = std::min<int64_t>(L, end - c) / 8;
    std::memcpy(&codes, reader.codes, bytes);
    reader.codes += bytes;
    if (c % 32 + L == 32) reader.codes = Packing::after_four(reader.codes);
    add_products<Set>(reader, codes, x, c, sum[0]);
  }
  for (int t = 0; t < TB && token + t < job.tokens; ++t) {
    for (int p = 1; p < PARTS; ++p) sum[0][t] += sum[p][t];
    job.y[(token + t) * job.rows + row] =
        finished<typename Packing::Values>(job, row, total<L>(sum[0][t]));
  }
}

template <typename Set, typename Packing, int TB>
RAC_INLINE void few_rows(const SparseLinear& job) {
  const int64_t fit = std::clamp<int64_t>(TILE_BYTES / job.columns, 1, 64);
  const int64_t rows = job.tokens > TB ? fit : 1;  // of a tile
#pragma omp for schedule(static)
  for (int64_t tile = 0; tile < job.rows; tile += rows) {
    for (int64_t token = 0; token < job.tokens; token += TB) {
      for (int64_t row = tile; row < std::min(tile + rows, job.rows); ++row) {
        few_row<Set, Packing, TB>(job, row, token);
      }
    }
  }
}

template <typename Set>
RAC_INLINE void few(const SparseLinear& job) {
  with_packing(job, [&](auto* packing) {
    using Packing = std::remove_pointer_t<decltype(packing)>;
    if (job.tokens == 1) few_rows<Set, Packing, 1>(job);
    else if (job.tokens == 2) few_rows<Set, Packing, 2>(job);
    else if (job.tokens <= 4) few_rows<Set, Packing, 4>(job);
    else few_rows<Set, Packing, 8>(job);
  });
}
