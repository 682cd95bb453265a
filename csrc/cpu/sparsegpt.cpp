// The blocks of sparsegpt.h, one after the other: inverses, selections, and who runs when.

#include "sparsegpt.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "huge_pages.h"
#include "lanes.h"
#include "select_lowest.h"
#include "triangular.h"

namespace {

int64_t up_to_multiple(int64_t size, int64_t of) { return (size + of - 1) / of * of; }

// U_bb^-1 in float32, found in float64: much rests on it.
RAC_INLINE void invert_block(const SparseGPT& job, const Columns& columns, float* inverse) {
  const int64_t width = columns.width;
  AlignedArray<double> exact(width * width);
  invert_upper(job.lower + columns.start * (job.stride_lower + 1), job.stride_lower, width,
               exact.get());
  for (int64_t i = 0; i < width; ++i) {
    for (int64_t j = 0; j < width; ++j) inverse[i * columns.padded + j] = exact[i * width + j];
    for (int64_t j = width; j < columns.padded; ++j) inverse[i * columns.padded + j] = 0;
  }
}

void invert_baseline(const SparseGPT& job, const Columns& columns, float* inverse) {
  invert_block(job, columns, inverse);
}
RAC_AVX2 void invert_avx2(const SparseGPT& job, const Columns& columns, float* inverse) {
  invert_block(job, columns, inverse);
}
RAC_AVX512 void invert_avx512(const SparseGPT& job, const Columns& columns, float* inverse) {
  invert_block(job, columns, inverse);
}

// How many of a block's `size` scores are pruned; THRESHOLD prunes ties on top.
int64_t count_of(const SparseGPT& job, const Columns& columns, const Matrix& matrix) {
  const int64_t size = matrix.rows * columns.width;
  int64_t count = std::llrint(size * job.sparsity);  // halves to even, as Python rounds
  if (job.rule == Rule::THRESHOLD) {
    count = std::min(static_cast<int64_t>(size * job.sparsity), size - 1) + 1;
  }
  if (!job.grow) return count;
  int64_t pruned = 0;
  for (int64_t r = 0; r < matrix.rows; ++r) {
    const uint8_t* keep = matrix.keep + r * job.columns + columns.start;
    for (int64_t c = 0; c < columns.width; ++c) pruned += keep[c] == 0;
  }
  return std::max(count, pruned);
}

void select_block(const SparseGPT& job, const Columns& columns, Block& block, int32_t* keys) {
  const int64_t size = block.matrix.rows * columns.width;
  key_tiles(job, columns, block, keys);
  const int64_t count = count_of(job, columns, block.matrix);
  const bool ties = job.rule == Rule::THRESHOLD;
  const Selection selection = select_lowest(keys, size, count, ties, job.threads);
  block.key = selection.key;
  block.last_tie = selection.last_tie;
}

// Memory that is written before it is read.
template <typename T>
std::unique_ptr<T[]> scratch(int64_t size) {
  return std::unique_ptr<T[]>(new T[size]);
}

}  // namespace

std::vector<double> sparsegpt(const SparseGPT& job) {
  const int64_t rows_of_tile = tile_rows(), step = tile_columns();
  const int64_t widest = std::min(job.block_size, job.columns);
  const int64_t padded = up_to_multiple(widest, step);
  const auto invert = pick(invert_baseline, invert_avx2, invert_avx512);
  int64_t most = 0;
  for (const Matrix& matrix : job.matrices) most = std::max(most, matrix.rows);
  for (const Matrix& matrix : job.matrices) {
    const int64_t rows = up_to_multiple(matrix.rows, rows_of_tile);
    advise_huge_pages(matrix.out, rows * job.columns * sizeof(float));
  }
  const bool selects = job.rule == Rule::COUNT || job.rule == Rule::THRESHOLD;
  AlignedArray<float> inverse(widest * padded);
  AlignedArray<float> carry(padded * up_to_multiple(job.columns, rows_of_tile));
  AlignedArray<float> values(padded * up_to_multiple(most, rows_of_tile));
  const auto keys = scratch<int32_t>(selects ? most * widest : 0);
  std::vector<double> losses(job.matrices.size());

  for (int64_t start = 0; start < job.columns; start += job.block_size) {
    Columns columns{start, std::min(job.block_size, job.columns - start), 0, inverse.get(),
                    carry.get(), 0};
    columns.padded = up_to_multiple(columns.width, step);
    columns.stride_carry = up_to_multiple(start, rows_of_tile) * step;
    invert(job, columns, inverse.get());
    carry_tiles(job, columns);
    for (size_t i = 0; i < job.matrices.size(); ++i) {
      if (job.matrices[i].rows == 0) continue;
      Block block{job.matrices[i], values.get()};
      load_tiles(job, columns, block);
      add_products(job, columns, block);
      if (selects) select_block(job, columns, block, keys.get());
      losses[i] += solve_tiles(job, columns, block);
    }
  }
  for (const Matrix& matrix : job.matrices) finish_tiles(job, matrix);
  return losses;
}
