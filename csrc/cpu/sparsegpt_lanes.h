// A tile of T rows in the L1 cache: masks, keys and errors beside its values.
#pragma once

#include <algorithm>

#include "lanes.h"
#include "sparsegpt.h"

// Per-thread scratch, all [width][VECTORS] vectors of L rows.
template <int L>
struct Scratch {
  static constexpr int V = Tiling<L>::VECTORS;
  Scratch(const SparseGPT& job, const Columns& columns)
      : errors(columns.width * V), pruned(columns.width * V),
        given(job.grow || job.rule == Rule::GIVEN ? columns.width * V : 0),
        keys(std::max<int64_t>(columns.width * V, 2 * job.m)) {}
  AlignedArray<F32<L>> errors;
  AlignedArray<I32<L>> pruned;
  AlignedArray<I32<L>> given;  // what keep prunes
  AlignedArray<I32<L>> keys;   // or, of one group, its keys and which are pruned
};

template <int L>
RAC_INLINE F32<L>* tile_values(const Columns& columns, const Block& block, int64_t tile) {
  return reinterpret_cast<F32<L>*>(block.values + tile * columns.padded * Tiling<L>::T);
}

// score = w^2 / R_jj^2, ordered as its bits; the mask keeps a NaN from becoming a negative key.
template <int L>
RAC_INLINE I32<L> score_key(const F32<L>& weight, float scale) {
  return (I32<L>)(weight * weight / (scale * scale)) & 0x7fffffff;
}

template <int L>
RAC_INLINE void load_given(const SparseGPT& job, const Columns& columns, const Block& block,
                           int64_t tile, Scratch<L>& scratch) {
  constexpr int T = Tiling<L>::T;
  const int64_t rows = std::min<int64_t>(T, block.matrix.rows - tile * T);
  const uint8_t* keep = block.matrix.keep + tile * T * job.columns + columns.start;
  int32_t* given = reinterpret_cast<int32_t*>(scratch.given.get());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < columns.width; ++j) {
      given[j * T + r] = -(keep[r * job.columns + j] == 0);
    }
  }
  for (int64_t r = rows; r < T; ++r) {
    for (int64_t j = 0; j < columns.width; ++j) given[j * T + r] = 0;
  }
}

// Keys of a tile: of the scores; growing, 0 for what is pruned already, else 1 more.
template <int L>
RAC_INLINE void block_keys(const SparseGPT& job, const Columns& columns, const Block& block,
                           int64_t tile, Scratch<L>& scratch) {
  constexpr int V = Tiling<L>::VECTORS;
  const F32<L>* values = tile_values<L>(columns, block, tile);
  for (int64_t j = 0; j < columns.width; ++j) {
    const float scale = columns.inverse[j * (columns.padded + 1)];
    for (int64_t i = j * V; i < (j + 1) * V; ++i) {
      scratch.keys[i] = score_key<L>(values[i], scale);
      if (job.grow) scratch.keys[i] = (scratch.keys[i] + 1) & ~scratch.given[i];
    }
  }
}

// Row-major indices in the block of a tile's weights in its first column.
template <int L>
RAC_INLINE void row_indices(const Columns& columns, int64_t tile,
                            I32<L> (&index)[Tiling<L>::VECTORS]) {
  constexpr int V = Tiling<L>::VECTORS, T = Tiling<L>::T;
#pragma GCC unroll 3
  for (int v = 0; v < V; ++v) {
    for (int lane = 0; lane < L; ++lane) {
      index[v][lane] = static_cast<int32_t>((tile * T + v * L + lane) * columns.width);
    }
  }
}
