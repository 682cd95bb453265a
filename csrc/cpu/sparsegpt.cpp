// The blocks of sparsegpt.h, one after the other: inverses, selections, and who waits for whom.

#include "sparsegpt.h"

#include <algorithm>
#include <atomic>

#include "huge_pages.h"
#include "lanes.h"
#include "sparsegpt_keys.h"
#include "triangular.h"

namespace {

int64_t up_to_multiple(int64_t size, int64_t of) { return (size + of - 1) / of * of; }

// U_bb^-1 in float32, found in float64: much rests on it. Both layouts of Columns.
template <int L>
RAC_INLINE void invert_block(const SparseGPT& job, const Columns& columns, float* inverse,
                             float* groups) {
  const int64_t width = columns.width, step = tile_columns();
  AlignedArray<double> exact(width * width);
  invert_upper<L>(job.lower + columns.start * (job.stride_lower + 1), job.stride_lower, width,
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
  invert_block<4>(job, columns, inverse, groups);
}
RAC_AVX2 void invert_avx2(const SparseGPT& job, const Columns& columns, float* inverse,
                          float* groups) {
  invert_block<8>(job, columns, inverse, groups);
}
RAC_AVX512 void invert_avx512(const SparseGPT& job, const Columns& columns, float* inverse,
                              float* groups) {
  invert_block<16>(job, columns, inverse, groups);
}

// What the threads share: sizes are of the widest block and of the matrix of most rows.
//
// Who has made his part of a group's carry goes on to the next group's as soon as he can, where
// there is memory for two: he has read his inverses, which are a group ahead, long before. So there
// are inverses of three groups: one being made, one read for the carry, one by who is behind.
struct Shared {
  static constexpr int INVERSES = 3;

  explicit Shared(const SparseGPT& job)
      : rows_of_tile(tile_rows()), step(tile_columns()),
        widest(std::min(job.block_size, job.columns)), slot(widest * up_to_multiple(widest, step)),
        group(fits_twice(job, widest) ? 2 : 1), carries(group),
        carry_size(up_to_multiple(widest, step) * up_to_multiple(job.columns, CHUNK)),
        values_size(up_to_multiple(widest, step) * up_to_multiple(most_rows(job), rows_of_tile)),
        inverses(INVERSES * group * 2 * slot), carry(carries * group * carry_size, false),
        values(group * values_size, false),
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

  // Whether the carry of four blocks is below a 15th of the weights and U.
  static bool fits_twice(const SparseGPT& job, int64_t widest) {
    int64_t rows = job.columns;
    for (const Matrix& matrix : job.matrices) rows += matrix.rows;
    return 15 * 4 * widest <= rows;
  }

  // The blocks of a group, none beyond the last.
  std::vector<Columns> columns_of(const SparseGPT& job, int64_t index) {
    std::vector<Columns> columns;
    for (int i = 0; i < group; ++i) {
      const int64_t start = (index * group + i) * job.block_size;
      if (start >= job.columns) break;
      const int64_t width = std::min(job.block_size, job.columns - start);
      const float* inverse = inverses.get() + (index % INVERSES * group + i) * 2 * slot;
      columns.push_back({start, width, up_to_multiple(width, step), inverse, inverse + slot,
                         carry.get() + (index % carries * group + i) * carry_size});
    }
    return columns;
  }

  int64_t rows_of_tile, step, widest;
  int64_t slot;        // floats of an inverse in one layout
  int group, carries;  // blocks of a group, groups whose carry has memory
  int64_t carry_size, values_size;
  AlignedArray<float> inverses, carry, values;
  std::atomic<int64_t> next{0};             // the task whose turn it is
  std::vector<Found> found;                 // of every thread
  std::vector<std::vector<double>> losses;  // of every tile of every matrix
};

void invert(const SparseGPT& job, const Columns& columns, Shared& shared) {
  float* inverse = shared.inverses.get() + (columns.inverse - shared.inverses.get());
  pick(invert_baseline, invert_avx2, invert_avx512)(job, columns, inverse, inverse + shared.slot);
}

constexpr int64_t CARRY_TILES = 4;  // in a task

// The inverses of the group `after` and the carry of the group, by whoever is free. The tasks of
// earlier groups were numbered up to `*tasks`; every thread takes one that there is not.
void prepare_group(const SparseGPT& job, const std::vector<Columns>& columns,
                   const std::vector<Columns>& after, const Team& team, Shared& shared,
                   int64_t* tasks) {
  const int64_t inverses = after.size(), tiles = CARRY_TILES * shared.rows_of_tile;
  const auto parts = [&](const Columns& block) { return (block.start + tiles - 1) / tiles; };
  int64_t count = inverses;
  for (const Columns& block : columns) count += parts(block);
  for (int64_t task = shared.next++ - *tasks; task < count; task = shared.next++ - *tasks) {
    if (task < inverses) {
      invert(job, after[task], shared);
      continue;
    }
    int64_t part = task - inverses, i = 0;
    for (; part >= parts(columns[i]); ++i) part -= parts(columns[i]);
    const int64_t end = (columns[i].start + shared.rows_of_tile - 1) / shared.rows_of_tile;
    const int64_t first = part * CARRY_TILES;
    carry_tiles(job, columns[i], first, std::min(first + CARRY_TILES, end));
  }
  *tasks += count + team.threads;
}

// The blocks of a group in one matrix.
void solve_group(const SparseGPT& job, const std::vector<Columns>& columns, int matrix,
                 const Team& team, Shared& shared) {
  std::vector<Block> blocks;
  for (size_t i = 0; i < columns.size(); ++i) {
    blocks.push_back({job.matrices[matrix], shared.values.get() + i * shared.values_size,
                      shared.losses[matrix].data()});
    load_tiles(job, columns[i], blocks[i], team);
  }
  const int64_t whole = columns[0].start / CHUNK * CHUNK;
  add_products(job, columns.data(), blocks.data(), columns.size(), 0, whole, team);
  for (size_t i = 0; i < columns.size(); ++i) {
    add_products(job, &columns[i], &blocks[i], 1, whole, columns[i].start, team);
    if (!shared.found.empty()) select_block(job, columns[i], team, shared.found, blocks[i]);
    solve_tiles(job, columns[i], blocks[i], team);
  }
}

// The thread's own tiles of the results.
void populate_results(const SparseGPT& job, const Matrix& matrix, const Team& team) {
  const int64_t rows = tile_rows(), tiles = up_to_multiple(matrix.rows, rows) / rows;
  const int64_t begin = team.begin(tiles) * rows, end = team.end(tiles) * rows;
  populate_pages(matrix.out + begin * job.columns, (end - begin) * job.columns * sizeof(float));
  populate_pages(matrix.keep + begin * job.columns,
                 (std::min(end, matrix.rows) - begin) * job.columns);
}

void solve_team(const SparseGPT& job, const Team& team, Shared& shared) {
  for (const Matrix& matrix : job.matrices) populate_results(job, matrix, team);
  std::vector<Columns> columns = shared.columns_of(job, 0);
  const int64_t first = columns.size();
  for (int64_t i = team.begin(first); i < team.end(first); ++i) invert(job, columns[i], shared);
  team.wait();
  int64_t tasks = 0;
  for (int64_t index = 0; !columns.empty(); ++index) {
    const std::vector<Columns> after = shared.columns_of(job, index + 1);
    prepare_group(job, columns, after, team, shared, &tasks);
    team.wait();
    for (size_t i = 0; i < job.matrices.size(); ++i) {
      if (job.matrices[i].rows == 0) continue;
      // Another matrix has other shares, and its values take the memory of the one before.
      if (i > 0) team.wait();
      solve_group(job, columns, i, team, shared);
    }
    if (shared.carries == 1) team.wait();  // the carry is free again
    columns = after;
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
