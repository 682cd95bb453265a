// Between the rows of a weight and the lanes of a tile: see sparsegpt.h.

#include <algorithm>

#include "elements.h"
#include "lanes.h"
#include "sparsegpt.h"

namespace {

// `count` weights of a row from column `first` on, as float32.
template <int L, typename Dtype>
RAC_INLINE void widen_row(const Matrix& matrix, int64_t row, int64_t first, int64_t count,
                          float* to) {
  const auto* from = static_cast<const typename Dtype::Storage*>(matrix.weight) +
                     row * matrix.stride_weight + first;
  int64_t c = 0;
  for (; c + L <= count; c += L) {
    const F32<L> value = Dtype::template load<L>(from + c);
    std::memcpy(to + c, &value, sizeof(value));
  }
  if (c < count) {
    const F32<L> value = load_first<L, Dtype>(from + c, count - c);
    std::memcpy(to + c, &value, (count - c) * sizeof(float));
  }
}

// W_b of L rows: to D_b, where solve_tiles looks for it, and to the values.
template <int L, typename Dtype>
RAC_INLINE void load_lanes(const SparseGPT& job, const Columns& columns, const Block& block,
                           int64_t tile, int vector, float* rows, F32<L>* lanes) {
  constexpr int T = Tiling<L>::T;
  const int64_t row = tile * T + vector * L;
  const int64_t count = std::clamp<int64_t>(block.matrix.rows - row, 0, L);
  for (int64_t r = 0; r < count; ++r) {
    widen_row<L, Dtype>(block.matrix, row + r, columns.start, columns.width,
                        rows + r * columns.width);
  }
  load_columns<L>(rows, columns.width, count, columns.width, lanes);
  float* old = block.matrix.out + (tile * job.columns + columns.start) * T + vector * L;
  float* values = block.values + tile * columns.padded * T + vector * L;
  for (int64_t c = 0; c < columns.padded; ++c) {
    F32<L> lane{};
    if (c < columns.width) {
      if (!job.dead || !job.dead[columns.start + c]) lane = lanes[c];
      std::memcpy(old + c * T, &lane, sizeof(lane));
    }
    std::memcpy(values + c * T, &lane, sizeof(lane));
  }
}

template <int L, typename Dtype>
RAC_INLINE void load_all(const SparseGPT& job, const Columns& columns, const Block& block) {
  const int64_t tiles = (block.matrix.rows + Tiling<L>::T - 1) / Tiling<L>::T;
  AlignedArray<float> rows(L * columns.width);
  AlignedArray<F32<L>> lanes(columns.width);
#pragma omp for schedule(static)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    for (int vector = 0; vector < Tiling<L>::VECTORS; ++vector) {
      load_lanes<L, Dtype>(job, columns, block, tile, vector, rows.get(), lanes.get());
    }
  }
}

// W + D of a tile, in the memory of D: row-major. `lanes` holds the tile meanwhile.
template <int L, typename Dtype>
RAC_INLINE void finish_tile(const SparseGPT& job, const Matrix& matrix, int64_t tile, float* lanes,
                            float* row) {
  constexpr int T = Tiling<L>::T;
  float* out = matrix.out + tile * T * job.columns;
  std::memcpy(lanes, out, T * job.columns * sizeof(float));
  const int64_t rows = std::min<int64_t>(T, matrix.rows - tile * T);
  for (int64_t c = 0; c < job.columns / 4 * 4; c += 4) {
    for (int r = 0; r < T; r += 4) {
      transpose_4x4(lanes + c * T + r, T, out + r * job.columns + c, job.columns);
    }
  }
  for (int64_t c = job.columns / 4 * 4; c < job.columns; ++c) {
    for (int r = 0; r < T; ++r) out[r * job.columns + c] = lanes[c * T + r];
  }
  for (int64_t r = 0; r < rows; ++r) {
    widen_row<L, Dtype>(matrix, tile * T + r, 0, job.columns, row);
    float* to = out + r * job.columns;
    for (int64_t c = 0; c < job.columns; ++c) to[c] += row[c];  // a pruned weight is w - w = 0
    for (int64_t c = 0; job.dead && c < job.columns; ++c) to[c] = job.dead[c] ? 0.0f : to[c];
  }
}

template <int L, typename Dtype>
RAC_INLINE void finish_all(const SparseGPT& job, const Matrix& matrix) {
  constexpr int T = Tiling<L>::T;
  const int64_t tiles = (matrix.rows + T - 1) / T;
  AlignedArray<float> lanes(T * job.columns), row(job.columns);
#pragma omp for schedule(static)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    finish_tile<L, Dtype>(job, matrix, tile, lanes.get(), row.get());
  }
}

template <int L>
RAC_INLINE void load_of(const SparseGPT& job, const Columns& columns, const Block& block) {
  if (job.dtype == 0) load_all<L, Float>(job, columns, block);
  else if (job.dtype == 1) load_all<L, BFloat16>(job, columns, block);
  else load_all<L, Float16>(job, columns, block);
}
template <int L>
RAC_INLINE void finish_of(const SparseGPT& job, const Matrix& matrix) {
  if (job.dtype == 0) finish_all<L, Float>(job, matrix);
  else if (job.dtype == 1) finish_all<L, BFloat16>(job, matrix);
  else finish_all<L, Float16>(job, matrix);
}

void load_baseline(const SparseGPT& job, const Columns& columns, const Block& block) {
  load_of<4>(job, columns, block);
}
RAC_AVX2 void load_avx2(const SparseGPT& job, const Columns& columns, const Block& block) {
  load_of<8>(job, columns, block);
}
RAC_AVX512 void load_avx512(const SparseGPT& job, const Columns& columns, const Block& block) {
  load_of<16>(job, columns, block);
}
void finish_baseline(const SparseGPT& job, const Matrix& matrix) { finish_of<4>(job, matrix); }
RAC_AVX2 void finish_avx2(const SparseGPT& job, const Matrix& matrix) {
  finish_of<8>(job, matrix);
}
RAC_AVX512 void finish_avx512(const SparseGPT& job, const Matrix& matrix) {
  finish_of<16>(job, matrix);
}

}  // namespace

void load_tiles(const SparseGPT& job, const Columns& columns, const Block& block) {
  const auto run = pick(load_baseline, load_avx2, load_avx512);
#pragma omp parallel num_threads(job.threads)
  run(job, columns, block);
}

void finish_tiles(const SparseGPT& job, const Matrix& matrix) {
  const auto run = pick(finish_baseline, finish_avx2, finish_avx512);
#pragma omp parallel num_threads(job.threads)
  run(job, matrix);
}
