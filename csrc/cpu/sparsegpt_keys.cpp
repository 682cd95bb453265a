// The two passes of sparsegpt_keys.h over a thread's tiles.

#include "sparsegpt_keys.h"

#include <algorithm>

#include "sparsegpt_lanes.h"

namespace {

// How many lanes of a tile are rows.
template <int L>
RAC_INLINE int64_t rows_of(const Block& block, int64_t tile) {
  constexpr int T = Tiling<L>::T;
  return std::min<int64_t>(T, block.matrix.rows - tile * T);
}

template <int L>
RAC_INLINE const int32_t* tile_keys(const SparseGPT& job, const Columns& columns,
                                    const Block& block, int64_t tile, Scratch<L>& scratch) {
  if (job.grow) load_given<L>(job, columns, block, tile, scratch);
  block_keys<L>(job, columns, block, tile, scratch);
  return reinterpret_cast<const int32_t*>(scratch.keys.get());
}

template <int L>
RAC_INLINE void count_all(const SparseGPT& job, const Columns& columns, const Block& block,
                          const Team& team, Found& found) {
  constexpr int T = Tiling<L>::T;
  Scratch<L> scratch(job, columns);
  std::fill(found.even.begin(), found.even.end(), 0);
  std::fill(found.odd.begin(), found.odd.end(), 0);
  uint32_t *even = found.even.data(), *odd = found.odd.data();
  const int64_t tiles = (block.matrix.rows + T - 1) / T;
  for (int64_t tile = team.begin(tiles); tile < team.end(tiles); ++tile) {
    const int32_t* keys = tile_keys<L>(job, columns, block, tile, scratch);
    const int64_t rows = rows_of<L>(block, tile);
    for (int64_t i = 0; rows == T && i < columns.width * T; i += 2) {
      ++even[keys[i] >> BIN_SHIFT];
      ++odd[keys[i + 1] >> BIN_SHIFT];
    }
    for (int64_t c = 0; rows < T && c < columns.width; ++c) {
      for (int64_t r = 0; r < rows; ++r) ++even[keys[c * T + r] >> BIN_SHIFT];
    }
  }
}

template <int L>
RAC_INLINE void copy_all(const SparseGPT& job, const Columns& columns, const Block& block,
                         const Team& team, int32_t bin, Found& found) {
  constexpr int T = Tiling<L>::T;
  Scratch<L> scratch(job, columns);
  const int64_t tiles = (block.matrix.rows + T - 1) / T, size = columns.width * T;
  int64_t copied = 0;
  for (int64_t tile = team.begin(tiles); tile < team.end(tiles); ++tile) {
    const int32_t* keys = tile_keys<L>(job, columns, block, tile, scratch);
    const int64_t rows = rows_of<L>(block, tile);
    if (static_cast<int64_t>(found.candidates.size()) < copied + size + 1) {
      found.candidates.resize(2 * copied + size + 1);
    }
    uint64_t* to = found.candidates.data();
    for (int64_t c = 0; c < columns.width; ++c) {
      uint64_t index = tile * T * columns.width + c;
      for (int64_t r = 0; r < rows; ++r, index += columns.width) {
        const uint32_t key = keys[c * T + r];
        to[copied] = static_cast<uint64_t>(key) << 32 | index;
        copied += static_cast<int32_t>(key >> BIN_SHIFT) == bin;  // nothing would predict a branch
      }
    }
  }
  found.copied = copied;
}

void count_baseline(const SparseGPT& job, const Columns& columns, const Block& block,
                    const Team& team, Found& found) {
  count_all<4>(job, columns, block, team, found);
}
RAC_AVX2 void count_avx2(const SparseGPT& job, const Columns& columns, const Block& block,
                         const Team& team, Found& found) {
  count_all<8>(job, columns, block, team, found);
}
RAC_AVX512 void count_avx512(const SparseGPT& job, const Columns& columns, const Block& block,
                             const Team& team, Found& found) {
  count_all<16>(job, columns, block, team, found);
}
void copy_baseline(const SparseGPT& job, const Columns& columns, const Block& block,
                   const Team& team, int bin, Found& found) {
  copy_all<4>(job, columns, block, team, bin, found);
}
RAC_AVX2 void copy_avx2(const SparseGPT& job, const Columns& columns, const Block& block,
                        const Team& team, int bin, Found& found) {
  copy_all<8>(job, columns, block, team, bin, found);
}
RAC_AVX512 void copy_avx512(const SparseGPT& job, const Columns& columns, const Block& block,
                            const Team& team, int bin, Found& found) {
  copy_all<16>(job, columns, block, team, bin, found);
}

}  // namespace

void count_keys(const SparseGPT& job, const Columns& columns, const Block& block,
                const Team& team, Found& found) {
  pick(count_baseline, count_avx2, count_avx512)(job, columns, block, team, found);
}

void copy_keys(const SparseGPT& job, const Columns& columns, const Block& block, const Team& team,
               int bin, Found& found) {
  pick(copy_baseline, copy_avx2, copy_avx512)(job, columns, block, team, bin, found);
}
