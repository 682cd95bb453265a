// The blocks of sparsegpt.h, one after the other: inverses, selections, and who waits for whom.

#include "sparsegpt.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lanes.h"
#include "sparsegpt_keys.h"
#include "triangular.h"

namespace {

int64_t up_to_multiple(int64_t size, int64_t of) { return (size + of - 1) / of * of; }

// U_bb^-1 in float32, found in float64: much rests on it. Both layouts of Columns.
RAC_INLINE void invert_block(const SparseGPT& job, const Columns& columns, float* inverse,
                             float* groups) {
  const int64_t width = columns.width, step = tile_columns();
  AlignedArray<double> exact(width * width);
  invert_upper(job.lower + columns.start * (job.stride_lower + 1), job.stride_lower, width,
               exact.get());
  for (int64_t i = 0; i < width; ++i) {
    float* row = inverse + i * columns.padded;
    for (int64_t j = 0; j < width; ++j) row[j] = exact[i * width + j];
    for (int64_t j = width; j < columns.padded; ++j) row[j] = 0;
    for (int64_t j = 0; j < columns.padded; j += step) {
      std::copy(row + j, row + j + step, groups + j * width + i * step);
    }
  }
}

void invert_baseline(const SparseGPT& job, const Columns& columns, float* inverse, float* groups) {
  invert_block(job, columns, inverse, groups);
}
RAC_AVX2 void invert_avx2(const SparseGPT& job, const Columns& columns, float* inverse,
                          float* groups) {
  invert_block(job, columns, inverse, groups);
}
RAC_AVX512 void invert_avx512(const SparseGPT& job, const Columns& columns, float* inverse,
                              float* groups) {
  invert_block(job, columns, inverse, groups);
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

// The block's `key` and `last_tie`: every thread finds them from what all found.
void select_block(const SparseGPT& job, const Columns& columns, const Team& team,
                  std::vector<Found>& found, Block& block) {
  int64_t count = count_of(job, columns, block.matrix);
  if (count <= 0) return;
  count_keys(job, columns, block, team, found[team.thread]);
  team.wait();
  int bin = 0;
  for (;; ++bin) {
    int64_t keys = 0;
    for (int thread = 0; thread < team.threads; ++thread) {
      keys += found[thread].even[bin] + found[thread].odd[bin];
    }
    if (count <= keys) break;  // now: the count-th lowest of this bin
    count -= keys;
  }
  copy_keys(job, columns, block, team, bin, found[team.thread]);
  team.wait();
  std::vector<uint64_t> all;
  for (int thread = 0; thread < team.threads; ++thread) {
    const uint64_t* candidates = found[thread].candidates.data();
    all.insert(all.end(), candidates, candidates + found[thread].copied);
  }
  std::nth_element(all.begin(), all.begin() + (count - 1), all.end());
  const bool all_ties = job.rule == Rule::THRESHOLD;
  block.key = static_cast<int32_t>(all[count - 1] >> 32);
  block.last_tie = all_ties ? std::numeric_limits<int32_t>::max()
                            : static_cast<int32_t>(all[count - 1] & 0xffffffff);
}

// What the threads share: sizes are of the widest block and of the matrix of most rows.
struct Shared {
  explicit Shared(const SparseGPT& job)
      : rows_of_tile(tile_rows()), step(tile_columns()),
        widest(std::min(job.block_size, job.columns)), slot(widest * up_to_multiple(widest, step)),
        inverses(2 * slot * job.threads),
        carry(up_to_multiple(widest, step) * up_to_multiple(job.columns, CHUNK)),
        values(up_to_multiple(widest, step) * up_to_multiple(most_rows(job), rows_of_tile)),
        found(job.rule == Rule::COUNT || job.rule == Rule::THRESHOLD ? job.threads : 0) {
    for (const Matrix& matrix : job.matrices) {
      const int64_t rows = up_to_multiple(matrix.rows, rows_of_tile);
      losses.emplace_back(rows / rows_of_tile);
    }
  }

  static int64_t most_rows(const SparseGPT& job) {
    int64_t most = 0;
    for (const Matrix& matrix : job.matrices) most = std::max(most, matrix.rows);
    return most;
  }

  // The block of columns from `start` on, its inverse in the slot of a thread.
  Columns columns_of(const SparseGPT& job, int64_t start, int thread) {
    float* inverse = inverses.get() + 2 * slot * thread;
    const int64_t width = std::min(job.block_size, job.columns - start);
    return {start, width, up_to_multiple(width, step), inverse, inverse + slot, carry.get()};
  }

  int64_t rows_of_tile, step, widest;
  int64_t slot;  // floats of an inverse in one layout
  AlignedArray<float> inverses;  // two layouts for every thread
  AlignedArray<float> carry, values;
  std::vector<Found> found;                // of every thread
  std::vector<std::vector<double>> losses;  // of every tile of every matrix
};

void solve_block(const SparseGPT& job, const Columns& columns, const Team& team, Shared& shared) {
  carry_tiles(job, columns, team);
  team.wait();
  for (size_t i = 0; i < job.matrices.size(); ++i) {
    if (job.matrices[i].rows == 0) continue;
    // Another matrix has other shares, and its values take the memory of the one before.
    if (i > 0) team.wait();
    Block block{job.matrices[i], shared.values.get(), shared.losses[i].data()};
    load_tiles(job, columns, block, team);
    add_products(job, columns, block, team);
    if (!shared.found.empty()) select_block(job, columns, team, shared.found, block);
    solve_tiles(job, columns, block, team);
  }
  team.wait();  // the carry is free again
}

void solve_team(const SparseGPT& job, const Team& team, Shared& shared) {
  const auto invert = pick(invert_baseline, invert_avx2, invert_avx512);
  int turn = 0;  // as many blocks are inverted at a time as there are threads
  for (int64_t start = 0; start < job.columns; start += job.block_size, ++turn) {
    turn %= team.threads;
    const int64_t own = start + team.thread * job.block_size;
    if (turn == 0 && own < job.columns) {
      const Columns columns = shared.columns_of(job, own, team.thread);
      float* inverse = shared.inverses.get() + 2 * shared.slot * team.thread;
      invert(job, columns, inverse, inverse + shared.slot);
    }
    if (turn == 0) team.wait();
    solve_block(job, shared.columns_of(job, start, turn), team, shared);
  }
  for (const Matrix& matrix : job.matrices) finish_tiles(job, matrix, team);
}

}  // namespace

std::vector<double> sparsegpt(const SparseGPT& job) {
  Shared shared(job);
  run_team(job.threads, [&](const Team& team) { solve_team(job, team, shared); });
  std::vector<double> losses;
  for (const std::vector<double>& parts : shared.losses) {
    double sum = 0;
    for (const double part : parts) sum += part;  // in the order of rows
    losses.push_back(sum);
  }
  return losses;
}
