// One SparseGPT block: choose the mask, push every column's error to the columns on its right.
//
//   for j in columns:  e_j = pruned ? w_j / R_jj : 0;   w[:, k] -= e_j R_jk  for k > j
//
// Work split: rows are independent, so L of them become the lanes of a vector and the tile
// (columns x L floats, 8 KB at 128 columns and 16 lanes) stays in the L1 cache while R streams by:
//
//             panel (8)      the rest of the block
//            +---------+----------------------------+
//   R rows   | serial  |  8 columns at a time, all  |   every w is loaded and stored once a panel
//   of panel |  in j   |  errors of the panel       |   instead of once a column
//            +---------+----------------------------+
//
// A weight receives its updates in the order of j whatever the panel, each rounded as a product and
// a difference (the build forbids contraction): results are those of the reference, bit for bit, on
// every instruction set and for every number of threads.

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "kernels.h"
#include "lanes.h"
#include "select_lowest.h"

namespace {

constexpr int PANEL = 8;

// Per-thread scratch, all of one tile.
template <int L>
struct Scratch {
  explicit Scratch(const BlockSolve& block)
      : weights(block.columns), errors(block.columns), pruned(block.columns), keys(block.m) {}
  AlignedArray<F32<L>> weights;
  AlignedArray<F32<L>> errors;
  AlignedArray<I32<L>> pruned;
  AlignedArray<I32<L>> keys;  // of one group
};

// score = w^2 / R_jj^2, ordered as its bits; the mask keeps a NaN from becoming a negative key.
template <int L>
RAC_INLINE I32<L> score_keys(const F32<L>& weight, float scale_squared) {
  return (I32<L>)(weight * weight / scale_squared) & 0x7fffffff;
}

// pruned[j] from the selection made over the whole block.
template <int L>
RAC_INLINE void prune_selected(const BlockSolve& block, const Selection& selection, int64_t row,
                               Scratch<L>& scratch) {
  const int32_t last_tie = static_cast<int32_t>(
      std::min<int64_t>(selection.last_tie, std::numeric_limits<int32_t>::max()));
  I32<L> index;  // row-major index in the block
  for (int lane = 0; lane < L; ++lane) {
    index[lane] = static_cast<int32_t>((row + lane) * block.columns);
  }
  for (int64_t j = 0; j < block.columns; ++j) {
    const float scale = block.inverse[j * block.columns + j];
    const I32<L> key = score_keys<L>(scratch.weights[j], scale * scale);
    scratch.pruned[j] = (key < selection.key) | ((key == selection.key) & (index <= last_tie));
    index += 1;
  }
}

template <int L>
RAC_INLINE void prune_given(const BlockSolve& block, int64_t row, int64_t rows,
                            Scratch<L>& scratch) {
  for (int64_t j = 0; j < block.columns; ++j) {
    for (int64_t r = 0; r < rows; ++r) {
      scratch.pruned[j][r] = -(block.keep[(row + r) * block.stride_keep + j] == 0);
    }
  }
}

template <int L>
RAC_INLINE void prune_group(const BlockSolve& block, int64_t j, Scratch<L>& scratch) {
  for (int i = 0; i < block.m; ++i) {
    const float scale = block.inverse[(j + i) * (block.columns + 1)];
    scratch.keys[i] = score_keys<L>(scratch.weights[j + i], scale * scale);
  }
  prune_lowest<L>(scratch.keys.get(), block.m, block.n, scratch.pruned.get() + j);
}

// Columns [first, last): errors, and their updates within the panel. Returns sum of e^2.
template <int L>
RAC_INLINE void solve_panel(const BlockSolve& block, int64_t first, int64_t last,
                            Scratch<L>& scratch, F32<L>& squares) {
  squares = F32<L>{};
  for (int64_t j = first; j < last; ++j) {
    if (block.rule == Rule::GROUPS && j % block.m == 0) prune_group(block, j, scratch);
    const float* inverse = block.inverse + j * block.columns;
    const F32<L> weight = scratch.weights[j];
    const I32<L> pruned = scratch.pruned[j];
    const F32<L> error = (F32<L>)((I32<L>)(weight / inverse[j]) & pruned);
    scratch.errors[j] = error;
    scratch.weights[j] = (F32<L>)((I32<L>)weight & ~pruned);
    squares += error * error;
    for (int64_t k = j + 1; k < last; ++k) scratch.weights[k] -= error * inverse[k];
  }
}

// Columns [last, end): all updates of the panel's errors, WIDTH columns held in registers.
template <int L, int WIDTH>
RAC_INLINE void push_panel(const BlockSolve& block, int64_t first, int64_t last, int64_t column,
                           Scratch<L>& scratch) {
  F32<L> sum[WIDTH];
  for (int i = 0; i < WIDTH; ++i) sum[i] = scratch.weights[column + i];
  for (int64_t j = first; j < last; ++j) {
    const F32<L> error = scratch.errors[j];
    const float* inverse = block.inverse + j * block.columns + column;
    for (int i = 0; i < WIDTH; ++i) sum[i] -= error * inverse[i];
  }
  for (int i = 0; i < WIDTH; ++i) scratch.weights[column + i] = sum[i];
}

template <int L>
RAC_INLINE double solve_tile(const BlockSolve& block, const Selection& selection, int64_t row,
                             Scratch<L>& scratch) {
  const int64_t rows = std::min<int64_t>(L, block.rows - row);
  float* values = block.values + row * block.stride_values;
  load_columns<L>(values, block.stride_values, rows, block.columns, scratch.weights.get());
  if (block.rule == Rule::GIVEN) prune_given(block, row, rows, scratch);
  else if (block.rule != Rule::GROUPS) prune_selected(block, selection, row, scratch);

  // A group must be chosen on finished weights, so a panel holds whole groups.
  int64_t width = PANEL;
  if (block.rule == Rule::GROUPS) width = (PANEL + block.m - 1) / block.m * block.m;
  double loss[L] = {};
  for (int64_t first = 0; first < block.columns; first += width) {
    const int64_t last = std::min(first + width, block.columns);
    F32<L> squares;
    solve_panel(block, first, last, scratch, squares);
    for (int lane = 0; lane < L; ++lane) loss[lane] += squares[lane];
    int64_t column = last;
    for (; column + 8 <= block.columns; column += 8) {
      push_panel<L, 8>(block, first, last, column, scratch);
    }
    for (; column < block.columns; ++column) push_panel<L, 1>(block, first, last, column, scratch);
  }

  store_columns<L>(scratch.weights.get(), rows, block.columns, values, block.stride_values);
  if (block.rule != Rule::GIVEN) {
    store_keep<L>(scratch.pruned.get(), rows, block.columns, block.keep + row * block.stride_keep,
               block.stride_keep);
  }
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) sum += loss[r];
  return sum;
}

// Tiles [first, last) of L rows; the loss of each goes to losses. Called inside a parallel region.
template <int L>
RAC_INLINE void solve_tiles(const BlockSolve& block, const Selection& selection, double* losses) {
  Scratch<L> scratch(block);
  const int64_t tiles = (block.rows + L - 1) / L;
#pragma omp for schedule(static)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    losses[tile] = solve_tile<L>(block, selection, tile * L, scratch);
  }
}

void solve_baseline(const BlockSolve& block, const Selection& selection, double* losses) {
  solve_tiles<4>(block, selection, losses);
}
RAC_AVX2 void solve_avx2(const BlockSolve& block, const Selection& selection, double* losses) {
  solve_tiles<8>(block, selection, losses);
}
RAC_AVX512 void solve_avx512(const BlockSolve& block, const Selection& selection, double* losses) {
  solve_tiles<16>(block, selection, losses);
}

// Scores of the whole block as keys, and the selection among them.
Selection select_block(const BlockSolve& block) {
  if (block.rule != Rule::COUNT && block.rule != Rule::THRESHOLD) return {0, -1};
  std::vector<float> scale_squared(block.columns);
  for (int64_t j = 0; j < block.columns; ++j) {
    const float scale = block.inverse[j * (block.columns + 1)];
    scale_squared[j] = scale * scale;
  }
  const int64_t size = block.rows * block.columns;
  // make_unique would zero it first
  const std::unique_ptr<int32_t[]> keys(new int32_t[size]);
#pragma omp parallel for schedule(static) num_threads(block.threads)
  for (int64_t row = 0; row < block.rows; ++row) {
    const float* values = block.values + row * block.stride_values;
    int32_t* out = keys.get() + row * block.columns;
    for (int64_t j = 0; j < block.columns; ++j) {
      const float score = values[j] * values[j] / scale_squared[j];
      std::memcpy(out + j, &score, 4);
      out[j] &= 0x7fffffff;
    }
  }
  return select_lowest(keys.get(), size, block.count, block.rule == Rule::THRESHOLD, block.threads);
}

}  // namespace

double sparsegpt_block(const BlockSolve& block) {
  const Selection selection = select_block(block);
  const auto solve = pick(solve_baseline, solve_avx2, solve_avx512);
  std::vector<double> losses(block.rows);  // one a tile, summed in order whatever the threads
#pragma omp parallel num_threads(block.threads)
  solve(block, selection, losses.data());
  double loss = 0;
  for (const double part : losses) loss += part;
  return loss;
}
