// A block of L rows in registers and the L1 cache: weights, masks, keys.
#pragma once

#include <algorithm>

#include "lanes.h"
#include "sparsegpt.h"

// Per-thread scratch, all of L rows.
template <int L>
struct Scratch {
  Scratch(const SparseGPT& job, const Columns& columns)
      : weights(columns.width), errors(columns.width), pruned(columns.width),
        given(columns.width), keys(std::max<int64_t>(columns.width, job.m)) {}
  AlignedArray<F32<L>> weights;
  AlignedArray<F32<L>> errors;
  AlignedArray<I32<L>> pruned;
  AlignedArray<I32<L>> given;  // what keep prunes
  AlignedArray<I32<L>> keys;
};

// score = w^2 / R_jj^2, ordered as its bits; the mask keeps a NaN from becoming a negative key.
template <int L>
RAC_INLINE I32<L> score_key(const F32<L>& weight, float scale) {
  return (I32<L>)(weight * weight / (scale * scale)) & 0x7fffffff;
}

template <int L>
RAC_INLINE void load_values(const Columns& columns, const Block& block, int64_t tile, int vector,
                            Scratch<L>& scratch) {
  constexpr int T = Tiling<L>::T;
  const float* values = block.values + tile * columns.padded * T + vector * L;
  for (int64_t j = 0; j < columns.width; ++j) {
    std::memcpy(&scratch.weights[j], values + j * T, sizeof(F32<L>));
  }
}

template <int L>
RAC_INLINE void load_given(const SparseGPT& job, const Columns& columns, const Block& block,
                           int64_t row, int64_t rows, Scratch<L>& scratch) {
  const uint8_t* keep = block.matrix.keep + row * job.columns + columns.start;
  for (int64_t j = 0; j < columns.width; ++j) {
    I32<L> lanes{};
    for (int64_t r = 0; r < rows; ++r) lanes[r] = -(keep[r * job.columns + j] == 0);
    scratch.given[j] = lanes;
  }
}

// Keys of the whole block: of the scores; growing, 0 for what is pruned already, else 1 more.
template <int L>
RAC_INLINE void block_keys(const SparseGPT& job, const Columns& columns, Scratch<L>& scratch) {
  for (int64_t j = 0; j < columns.width; ++j) {
    const float scale = columns.inverse[j * (columns.padded + 1)];
    scratch.keys[j] = score_key<L>(scratch.weights[j], scale);
    if (job.grow) scratch.keys[j] = (scratch.keys[j] + 1) & ~scratch.given[j];
  }
}
