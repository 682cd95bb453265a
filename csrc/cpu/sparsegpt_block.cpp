// One SparseGPT block: choose the mask, push every column's error to the columns on its right.
//
//   for j in columns:  e_j = pruned ? w_j / R_jj : 0;   w[:, k] -= e_j R_jk  for k > j
//
// Work split: rows are independent, so the T rows of a tile are the lanes of V vectors, whose
// divisions overlap, and the tile (columns x T floats, 12 KB at 128 columns and 8 lanes) stays in
// the L1 cache while R streams by:
//
//             panel (8)      the rest of the block
//            +---------+----------------------------+
//   R rows   | serial  |  N columns at a time, all  |   every w is loaded and stored once a panel
//   of panel |  in j   |  errors of the panel       |   instead of once a column
//            +---------+----------------------------+
//
// A weight receives its updates in the order of j whatever the panel, each rounded as a product and
// a difference (the build forbids contraction): from the same values, results are those of the
// reference, bit for bit, on every instruction set and for every number of threads.

#include <algorithm>

#include "sparsegpt.h"
#include "sparsegpt_lanes.h"

namespace {

constexpr int PANEL = 8;

// pruned from the selection made over the whole block.
template <int L>
RAC_INLINE void prune_selected(const SparseGPT& job, const Columns& columns, const Block& block,
                               int64_t tile, Scratch<L>& scratch) {
  constexpr int V = Tiling<L>::VECTORS;
  block_keys<L>(job, columns, block, tile, scratch);
  I32<L> index[V];
  row_indices<L>(columns, tile, index);
  for (int64_t j = 0; j < columns.width; ++j) {
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      const I32<L> highest = block.key + (index[v] > block.last_tie);  // a compare gives -1 or 0
      scratch.pruned[j * V + v] = scratch.keys[j * V + v] <= highest;
      index[v] += 1;
    }
  }
}

// The group of columns from j on; M is m where that is known beforehand, else 0.
template <int L, int M>
RAC_INLINE void prune_group(const SparseGPT& job, const Columns& columns, int64_t j,
                            const F32<L>* weights, Scratch<L>& scratch) {
  constexpr int V = Tiling<L>::VECTORS;
  const int m = M > 0 ? M : job.m;
  I32<L> few_keys[M > 0 ? M : 1], few_pruned[M > 0 ? M : 1];
  I32<L>* keys = M > 0 ? few_keys : scratch.keys.get();
  I32<L>* pruned = M > 0 ? few_pruned : scratch.keys.get() + m;
  for (int v = 0; v < V; ++v) {
    for (int i = 0; i < m; ++i) {
      const int64_t at = (j + i) * V + v;
      keys[i] = score_key<L>(weights[at], columns.inverse[(j + i) * (columns.padded + 1)]);
      if (job.grow) keys[i] |= scratch.given[at];  // -1, below all scores
    }
    prune_lowest<L>(keys, m, job.n, pruned);
    for (int i = 0; i < m; ++i) {
      const int64_t at = (j + i) * V + v;
      scratch.pruned[at] = job.grow ? pruned[i] | scratch.given[at] : pruned[i];
    }
  }
}

// Columns [first, last): errors, and their updates within the panel; squares = sum of e^2.
template <int L>
RAC_INLINE void solve_panel(const SparseGPT& job, const Columns& columns, int64_t first,
                            int64_t last, F32<L>* weights, Scratch<L>& scratch,
                            F32<L> (&squares)[Tiling<L>::VECTORS]) {
  constexpr int V = Tiling<L>::VECTORS;
#pragma GCC unroll 3
  for (int v = 0; v < V; ++v) squares[v] = F32<L>{};
  for (int64_t j = first; j < last; ++j) {
    if (job.rule == Rule::GROUPS && j % job.m == 0) {
      if (job.m == 4) prune_group<L, 4>(job, columns, j, weights, scratch);
      else prune_group<L, 0>(job, columns, j, weights, scratch);
    }
    const float* inverse = columns.inverse + j * columns.padded;
    F32<L> error[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      const F32<L> weight = weights[j * V + v];
      const I32<L> pruned = scratch.pruned[j * V + v];
      error[v] = (F32<L>)((I32<L>)(weight / inverse[j]) & pruned);
      scratch.errors[j * V + v] = error[v];
      weights[j * V + v] = (F32<L>)((I32<L>)weight & ~pruned);
      squares[v] += error[v] * error[v];
    }
    for (int64_t k = j + 1; k < last; ++k) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) weights[k * V + v] -= error[v] * inverse[k];
    }
  }
}

// Columns [last, end): all updates of the panel's errors, WIDTH columns held in registers.
template <int L, int WIDTH>
RAC_INLINE void push_panel(const Columns& columns, int64_t first, int64_t last, int64_t column,
                           F32<L>* weights, Scratch<L>& scratch) {
  constexpr int V = Tiling<L>::VECTORS;
  F32<L> sum[WIDTH][V];
  F32<L>* to = weights + column * V;
#pragma GCC unroll 8
  for (int i = 0; i < WIDTH; ++i) {
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) sum[i][v] = to[i * V + v];
  }
  for (int64_t j = first; j < last; ++j) {
    const F32<L>* error = scratch.errors.get() + j * V;
    const float* inverse = columns.inverse + j * columns.padded + column;
#pragma GCC unroll 8
    for (int i = 0; i < WIDTH; ++i) {
      const float scalar = inverse[i];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) sum[i][v] -= error[v] * scalar;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < WIDTH; ++i) {
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) to[i * V + v] = sum[i][v];
  }
}

// D_b = values - W_b, which load_tiles left there; the mask.
template <int L>
RAC_INLINE void store_result(const SparseGPT& job, const Columns& columns, const Block& block,
                             int64_t tile, const F32<L>* weights, Scratch<L>& scratch) {
  constexpr int V = Tiling<L>::VECTORS, T = Tiling<L>::T;
  float* delta = block.matrix.out + (tile * job.columns + columns.start) * T;
  for (int64_t i = 0; i < columns.width * V; ++i) {
    F32<L> old;
    std::memcpy(&old, delta + i * L, sizeof(old));
    const F32<L> change = weights[i] - old;
    std::memcpy(delta + i * L, &change, sizeof(change));
  }
  if (job.rule == Rule::GIVEN) return;
  for (int v = 0; v < V; ++v) {
    const int64_t row = tile * T + v * L;
    const int64_t rows = std::clamp<int64_t>(block.matrix.rows - row, 0, L);
    store_keep<L>(scratch.pruned.get() + v, V, rows, columns.width,
                  block.matrix.keep + row * job.columns + columns.start, job.columns);
  }
}

template <int L>
RAC_INLINE double solve_tile(const SparseGPT& job, const Columns& columns, const Block& block,
                             int64_t tile, Scratch<L>& scratch) {
  constexpr int V = Tiling<L>::VECTORS, T = Tiling<L>::T, N = Tiling<L>::N;
  F32<L>* weights = tile_values<L>(columns, block, tile);
  if (job.grow || job.rule == Rule::GIVEN) load_given<L>(job, columns, block, tile, scratch);
  if (job.rule == Rule::GIVEN) std::swap(scratch.pruned, scratch.given);
  else if (job.rule != Rule::GROUPS) prune_selected<L>(job, columns, block, tile, scratch);

  // A group must be chosen on finished weights, so a panel holds whole groups.
  int64_t width = PANEL;
  if (job.rule == Rule::GROUPS) width = (PANEL + job.m - 1) / job.m * job.m;
  double loss[T] = {};
  for (int64_t first = 0; first < columns.width; first += width) {
    const int64_t last = std::min(first + width, columns.width);
    F32<L> squares[V];
    solve_panel<L>(job, columns, first, last, weights, scratch, squares);
    float parts[T];
    std::memcpy(parts, squares, sizeof(parts));
    for (int lane = 0; lane < T; ++lane) loss[lane] += parts[lane];
    int64_t column = last;
    for (; column + N <= columns.width; column += N) {
      push_panel<L, N>(columns, first, last, column, weights, scratch);
    }
    for (; column < columns.width; ++column) {
      push_panel<L, 1>(columns, first, last, column, weights, scratch);
    }
  }
  store_result<L>(job, columns, block, tile, weights, scratch);
  double sum = 0;
  const int64_t rows = std::min<int64_t>(T, block.matrix.rows - tile * T);
  for (int64_t r = 0; r < rows; ++r) sum += loss[r];
  return sum;
}

template <int L>
RAC_INLINE void solve_all(const SparseGPT& job, const Columns& columns, const Block& block,
                          const Team& team) {
  Scratch<L> scratch(job, columns);
  const int64_t tiles = (block.matrix.rows + Tiling<L>::T - 1) / Tiling<L>::T;
  for (int64_t tile = team.begin(tiles); tile < team.end(tiles); ++tile) {
    block.losses[tile] += solve_tile<L>(job, columns, block, tile, scratch);
  }
}

void solve_baseline(const SparseGPT& job, const Columns& columns, const Block& block,
                    const Team& team) {
  solve_all<4>(job, columns, block, team);
}
RAC_AVX2 void solve_avx2(const SparseGPT& job, const Columns& columns, const Block& block,
                         const Team& team) {
  solve_all<8>(job, columns, block, team);
}
RAC_AVX512 void solve_avx512(const SparseGPT& job, const Columns& columns, const Block& block,
                             const Team& team) {
  solve_all<16>(job, columns, block, team);
}

}  // namespace

void solve_tiles(const SparseGPT& job, const Columns& columns, const Block& block,
                 const Team& team) {
  pick(solve_baseline, solve_avx2, solve_avx512)(job, columns, block, team);
}
