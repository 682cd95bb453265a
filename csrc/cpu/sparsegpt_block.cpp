// One SparseGPT block: choose the mask, push every column's error to the columns on its right.
//
//   for j in columns:  e_j = pruned ? w_j / R_jj : 0;   w[:, k] -= e_j R_jk  for k > j
//
// Work split: rows are independent, so L of them are the lanes of a vector and the tile
// (columns x L floats, 8 KB at 128 columns and 16 lanes) stays in the L1 cache while R streams by:
//
//             panel (8)      the rest of the block
//            +---------+----------------------------+
//   R rows   | serial  |  8 columns at a time, all  |   every w is loaded and stored once a panel
//   of panel |  in j   |  errors of the panel       |   instead of once a column
//            +---------+----------------------------+
//
// A weight receives its updates in the order of j whatever the panel, each rounded as a product and
// a difference (the build forbids contraction): from the same values, results are those of the
// reference, bit for bit, on every instruction set and for every number of threads.

#include <algorithm>
#include <limits>
#include <vector>

#include "sparsegpt.h"
#include "sparsegpt_lanes.h"

namespace {

constexpr int PANEL = 8;

// pruned[j] from the selection made over the whole block.
template <int L>
RAC_INLINE void prune_selected(const SparseGPT& job, const Columns& columns, const Block& block,
                               int64_t row, Scratch<L>& scratch) {
  block_keys<L>(job, columns, scratch);
  const int32_t last_tie = static_cast<int32_t>(
      std::min<int64_t>(block.last_tie, std::numeric_limits<int32_t>::max()));
  I32<L> index;  // row-major index in the block
  for (int lane = 0; lane < L; ++lane) {
    index[lane] = static_cast<int32_t>((row + lane) * columns.width);
  }
  for (int64_t j = 0; j < columns.width; ++j) {
    const I32<L> key = scratch.keys[j];
    scratch.pruned[j] = (key < block.key) | ((key == block.key) & (index <= last_tie));
    index += 1;
  }
}

template <int L>
RAC_INLINE void prune_group(const SparseGPT& job, const Columns& columns, int64_t j,
                            Scratch<L>& scratch) {
  for (int i = 0; i < job.m; ++i) {
    const float scale = columns.inverse[(j + i) * (columns.padded + 1)];
    scratch.keys[i] = score_key<L>(scratch.weights[j + i], scale);
    if (job.grow) scratch.keys[i] |= scratch.given[j + i];  // -1, below all scores
  }
  prune_lowest<L>(scratch.keys.get(), job.m, job.n, scratch.pruned.get() + j);
  for (int i = 0; job.grow && i < job.m; ++i) scratch.pruned[j + i] |= scratch.given[j + i];
}

// Columns [first, last): errors, and their updates within the panel. Returns sum of e^2.
template <int L>
RAC_INLINE void solve_panel(const SparseGPT& job, const Columns& columns, int64_t first,
                            int64_t last, Scratch<L>& scratch, F32<L>& squares) {
  squares = F32<L>{};
  for (int64_t j = first; j < last; ++j) {
    if (job.rule == Rule::GROUPS && j % job.m == 0) prune_group(job, columns, j, scratch);
    const float* inverse = columns.inverse + j * columns.padded;
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
RAC_INLINE void push_panel(const Columns& columns, int64_t first, int64_t last, int64_t column,
                           Scratch<L>& scratch) {
  F32<L> sum[WIDTH];
  for (int i = 0; i < WIDTH; ++i) sum[i] = scratch.weights[column + i];
  for (int64_t j = first; j < last; ++j) {
    const F32<L> error = scratch.errors[j];
    const float* inverse = columns.inverse + j * columns.padded + column;
    for (int i = 0; i < WIDTH; ++i) sum[i] -= error * inverse[i];
  }
  for (int i = 0; i < WIDTH; ++i) scratch.weights[column + i] = sum[i];
}

// D_b = values - W_b, which load_tiles left there; the mask.
template <int L>
RAC_INLINE void store_result(const SparseGPT& job, const Columns& columns, const Block& block,
                             int64_t tile, int vector, int64_t rows, Scratch<L>& scratch) {
  constexpr int T = Tiling<L>::T;
  float* delta = block.matrix.out + (tile * job.columns + columns.start) * T + vector * L;
  for (int64_t j = 0; j < columns.width; ++j) {
    F32<L> old;
    std::memcpy(&old, delta + j * T, sizeof(old));
    const F32<L> change = scratch.weights[j] - old;
    std::memcpy(delta + j * T, &change, sizeof(change));
  }
  if (job.rule == Rule::GIVEN) return;
  const int64_t row = tile * T + vector * L;
  store_keep<L>(scratch.pruned.get(), rows, columns.width,
                block.matrix.keep + row * job.columns + columns.start, job.columns);
}

template <int L>
RAC_INLINE double solve_lanes(const SparseGPT& job, const Columns& columns, const Block& block,
                              int64_t tile, int vector, Scratch<L>& scratch) {
  const int64_t row = tile * Tiling<L>::T + vector * L;
  const int64_t rows = std::clamp<int64_t>(block.matrix.rows - row, 0, L);
  load_values<L>(columns, block, tile, vector, scratch);
  if (job.grow || job.rule == Rule::GIVEN) load_given<L>(job, columns, block, row, rows, scratch);
  if (job.rule == Rule::GIVEN) std::swap(scratch.pruned, scratch.given);
  else if (job.rule != Rule::GROUPS) prune_selected<L>(job, columns, block, row, scratch);

  // A group must be chosen on finished weights, so a panel holds whole groups.
  int64_t width = PANEL;
  if (job.rule == Rule::GROUPS) width = (PANEL + job.m - 1) / job.m * job.m;
  double loss[L] = {};
  for (int64_t first = 0; first < columns.width; first += width) {
    const int64_t last = std::min(first + width, columns.width);
    F32<L> squares;
    solve_panel<L>(job, columns, first, last, scratch, squares);
    for (int lane = 0; lane < L; ++lane) loss[lane] += squares[lane];
    int64_t column = last;
    for (; column + 8 <= columns.width; column += 8) {
      push_panel<L, 8>(columns, first, last, column, scratch);
    }
    for (; column < columns.width; ++column) {
      push_panel<L, 1>(columns, first, last, column, scratch);
    }
  }
  store_result<L>(job, columns, block, tile, vector, rows, scratch);
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) sum += loss[r];
  return sum;
}

// All groups of L rows; the loss of each goes to losses. Called inside a parallel region.
template <int L>
RAC_INLINE void solve_all(const SparseGPT& job, const Columns& columns, const Block& block,
                          double* losses) {
  Scratch<L> scratch(job, columns);
  const int64_t groups = (block.matrix.rows + L - 1) / L;
#pragma omp for schedule(static)
  for (int64_t group = 0; group < groups; ++group) {
    losses[group] = solve_lanes<L>(job, columns, block, group / Tiling<L>::VECTORS,
                                   group % Tiling<L>::VECTORS, scratch);
  }
}

void solve_baseline(const SparseGPT& job, const Columns& columns, const Block& block,
                    double* losses) {
  solve_all<4>(job, columns, block, losses);
}
RAC_AVX2 void solve_avx2(const SparseGPT& job, const Columns& columns, const Block& block,
                         double* losses) {
  solve_all<8>(job, columns, block, losses);
}
RAC_AVX512 void solve_avx512(const SparseGPT& job, const Columns& columns, const Block& block,
                             double* losses) {
  solve_all<16>(job, columns, block, losses);
}
}  // namespace

double solve_tiles(const SparseGPT& job, const Columns& columns, const Block& block) {
  const auto run = pick(solve_baseline, solve_avx2, solve_avx512);
  std::vector<double> losses(block.matrix.rows);  // one for L rows, added in order
#pragma omp parallel num_threads(job.threads)
  run(job, columns, block, losses.data());
  double loss = 0;
  for (const double part : losses) loss += part;
  return loss;
}
