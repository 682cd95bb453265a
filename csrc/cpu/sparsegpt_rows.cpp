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

// Ask for W_b of the rows of a tile: every one is in a page of its own.
template <int L, typename Dtype>
RAC_INLINE void prefetch_tile(const Columns& columns, const Matrix& matrix, int64_t tile) {
  constexpr int T = Tiling<L>::T;
  using Storage = typename Dtype::Storage;
  const int64_t end = std::min<int64_t>((tile + 1) * T, matrix.rows);
  for (int64_t r = tile * T; r < end; ++r) {
    const auto* row = static_cast<const Storage*>(matrix.weight) + r * matrix.stride_weight;
    for (int64_t c = 0; c < columns.width; c += 64 / sizeof(Storage)) {
      __builtin_prefetch(row + columns.start + c);
    }
  }
}

// W_b of a tile: to D_b, where solve_tiles looks for it, and to the values. `rows` holds four.
template <int L, typename Dtype>
RAC_INLINE void load_tile(const SparseGPT& job, const Columns& columns, const Block& block,
                          int64_t tile, float* rows) {
  constexpr int T = Tiling<L>::T;
  float* old = block.matrix.out + (tile * job.columns + columns.start) * T;
  for (int64_t r = 0; r < T; r += 4) {
    const int64_t first = tile * T + r;
    const int64_t count = std::clamp<int64_t>(block.matrix.rows - first, 0, 4);
    for (int64_t i = 0; i < count; ++i) {
      widen_row<L, Dtype>(block.matrix, first + i, columns.start, columns.width,
                          rows + i * columns.width);
    }
    std::fill(rows + count * columns.width, rows + 4 * columns.width, 0.0f);
    const int64_t whole = columns.width / 4 * 4;
    for (int64_t c = 0; c < whole; c += 4) {
      transpose_4x4(rows + c, columns.width, old + c * T + r, T);
    }
    for (int64_t c = whole; c < columns.width; ++c) {
      for (int64_t i = 0; i < 4; ++i) old[c * T + r + i] = rows[i * columns.width + c];
    }
  }
  for (int64_t c = 0; job.dead && c < columns.width; ++c) {
    if (job.dead[columns.start + c]) std::fill(old + c * T, old + (c + 1) * T, 0.0f);
  }
  float* values = block.values + tile * columns.padded * T;
  std::memcpy(values, old, columns.width * T * sizeof(float));
  std::fill(values + columns.width * T, values + columns.padded * T, 0.0f);
}

template <int L, typename Dtype>
RAC_INLINE void load_all(const SparseGPT& job, const Columns& columns, const Block& block,
                         const Team& team) {
  const int64_t tiles = (block.matrix.rows + Tiling<L>::T - 1) / Tiling<L>::T;
  AlignedArray<float> rows(4 * columns.width);
  for (int64_t tile = team.begin(tiles); tile < team.end(tiles); ++tile) {
    if (tile + 1 < team.end(tiles)) prefetch_tile<L, Dtype>(columns, block.matrix, tile + 1);
    load_tile<L, Dtype>(job, columns, block, tile, rows.get());
  }
}

constexpr int64_t STRIP = 128;  // columns of a tile that become rows at a time

// W + D of a tile, in the memory of D: row-major. `lanes` holds the tile meanwhile.
template <int L, typename Dtype>
RAC_INLINE void finish_tile(const SparseGPT& job, const Matrix& matrix, int64_t tile, float* lanes,
                            float* row) {
  constexpr int T = Tiling<L>::T;
  float* out = matrix.out + tile * T * job.columns;
  std::memcpy(lanes, out, T * job.columns * sizeof(float));
  const int64_t rows = std::min<int64_t>(T, matrix.rows - tile * T);
  for (int64_t start = 0; start < job.columns; start += STRIP) {
    const int64_t end = std::min(start + STRIP, job.columns), whole = end / 4 * 4;
    for (int r = 0; r < T; r += 4) {
      float* to = out + r * job.columns;
      for (int64_t c = start; c < whole; c += 4) {
        transpose_4x4(lanes + c * T + r, T, to + c, job.columns);
      }
      for (int64_t c = whole; c < end; ++c) {
        for (int i = 0; i < 4; ++i) to[i * job.columns + c] = lanes[c * T + r + i];
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      widen_row<L, Dtype>(matrix, tile * T + r, start, end - start, row);
      float* to = out + r * job.columns + start;
      for (int64_t c = 0; c < end - start; ++c) to[c] += row[c];  // a pruned weight: w - w = 0
      for (int64_t c = 0; job.dead && c < end - start; ++c) {
        to[c] = job.dead[start + c] ? 0.0f : to[c];
      }
    }
  }
}

template <int L, typename Dtype>
RAC_INLINE void finish_all(const SparseGPT& job, const Matrix& matrix, const Team& team) {
  constexpr int T = Tiling<L>::T;
  const int64_t tiles = (matrix.rows + T - 1) / T;
  AlignedArray<float> lanes(T * job.columns), row(STRIP);
  for (int64_t tile = team.begin(tiles); tile < team.end(tiles); ++tile) {
    finish_tile<L, Dtype>(job, matrix, tile, lanes.get(), row.get());
  }
}

template <int L>
RAC_INLINE void load_of(const SparseGPT& job, const Columns& columns, const Block& block,
                        const Team& team) {
  if (job.dtype == 0) load_all<L, Float>(job, columns, block, team);
  else if (job.dtype == 1) load_all<L, BFloat16>(job, columns, block, team);
  else load_all<L, Float16>(job, columns, block, team);
}
template <int L>
RAC_INLINE void finish_of(const SparseGPT& job, const Matrix& matrix, const Team& team) {
  if (job.dtype == 0) finish_all<L, Float>(job, matrix, team);
  else if (job.dtype == 1) finish_all<L, BFloat16>(job, matrix, team);
  else finish_all<L, Float16>(job, matrix, team);
}

void load_baseline(const SparseGPT& job, const Columns& columns, const Block& block,
                   const Team& team) {
  load_of<4>(job, columns, block, team);
}
RAC_AVX2 void load_avx2(const SparseGPT& job, const Columns& columns, const Block& block,
                        const Team& team) {
  load_of<8>(job, columns, block, team);
}
RAC_AVX512 void load_avx512(const SparseGPT& job, const Columns& columns, const Block& block,
                            const Team& team) {
  load_of<16>(job, columns, block, team);
}
void finish_baseline(const SparseGPT& job, const Matrix& matrix, const Team& team) {
  finish_of<4>(job, matrix, team);
}
RAC_AVX2 void finish_avx2(const SparseGPT& job, const Matrix& matrix, const Team& team) {
  finish_of<8>(job, matrix, team);
}
RAC_AVX512 void finish_avx512(const SparseGPT& job, const Matrix& matrix, const Team& team) {
  finish_of<16>(job, matrix, team);
}

}  // namespace

void load_tiles(const SparseGPT& job, const Columns& columns, const Block& block,
                const Team& team) {
  pick(load_baseline, load_avx2, load_avx512)(job, columns, block, team);
}

void finish_tiles(const SparseGPT& job, const Matrix& matrix, const Team& team) {
  pick(finish_baseline, finish_avx2, finish_avx512)(job, matrix, team);
}
