// Which scores of a block are pruned: see sparsegpt_keys.h.

#include <algorithm>
#include <cmath>
#include <limits>

#include "sparsegpt_keys.h"

namespace {

constexpr int64_t SAMPLE = 4096;  // keys of a block's sample, twice that at most

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

// Bins of the sample that hold the ranks within four standard deviations of `share` of it, were it
// drawn at random.
Window window_of(const std::vector<Found>& found, double share) {
  std::vector<int64_t> sums(BINS);
  int64_t size = 0;
  for (const Found& each : found) {
    for (int bin = 0; bin < BINS; ++bin) sums[bin] += each.sample[bin];
  }
  for (int64_t& sum : sums) sum = size += sum;
  const double slack = 2 * std::sqrt(size), rank = share * size;
  const auto bin_of = [&](double of) {
    const auto at = std::lower_bound(sums.begin(), sums.end(), static_cast<int64_t>(of));
    return static_cast<uint32_t>(std::min<int64_t>(at - sums.begin(), BINS - 1));
  };
  const uint32_t first = rank > slack ? bin_of(rank - slack) : 0;
  const uint32_t last = bin_of(rank + slack + 1);
  return {static_cast<int32_t>(first << BIN_SHIFT),
          static_cast<int32_t>(((last + 1) << BIN_SHIFT) - 1)};
}

// The window that holds the count-th lowest key, what all threads found in it in `found`; `count`
// becomes its rank there.
Window find_window(const SparseGPT& job, const Columns& columns, const Team& team,
                   std::vector<Found>& found, const Block& block, int64_t* count) {
  const int64_t size = block.matrix.rows * columns.width;
  // Odd: widths and tiles are even, so that all columns and rows have their turns.
  const int64_t step = std::max<int64_t>(size / SAMPLE, 1) | 1;
  sample_keys(job, columns, block, team, step, found[team.thread]);
  team.wait();
  Window window = window_of(found, static_cast<double>(*count) / size);
  for (;;) {
    collect_keys(job, columns, block, team, window, found[team.thread]);
    team.wait();
    int64_t below = 0, inside = 0;
    for (const Found& each : found) {
      below += each.below;
      inside += each.inside;
    }
    if (below < *count && *count <= below + inside) {
      *count -= below;
      return window;
    }
    window = {0, std::numeric_limits<int32_t>::max()};  // the sample was not like the rest
    team.wait();
  }
}

}  // namespace

void select_block(const SparseGPT& job, const Columns& columns, const Team& team,
                  std::vector<Found>& found, Block& block) {
  int64_t count = count_of(job, columns, block.matrix);
  if (count <= 0) return;
  const Window window = find_window(job, columns, team, found, block, &count);
  int shift = 0;
  while ((window.highest - window.lowest) >> shift >= FINE_BINS) ++shift;
  const auto bin_of = [&](int32_t key) { return (key - window.lowest) >> shift; };
  Found& own = found[team.thread];
  std::fill(own.fine.begin(), own.fine.end(), 0);
  for (int64_t i = 0; i < own.inside; ++i) ++own.fine[bin_of(own.keys[i])];
  team.wait();
  int bin = 0;
  int64_t keys = 0;
  for (;; ++bin) {
    keys = 0;
    for (const Found& each : found) keys += each.fine[bin];
    if (count <= keys) break;  // now: the count-th lowest of this bin
    count -= keys;
  }
  // A key, and below it the weight's index: ordered by key, ties by lowest index.
  std::vector<uint64_t> all(keys + 1);
  int64_t copied = 0;
  for (const Found& each : found) {
    for (int64_t i = 0; i < each.inside; ++i) {
      const uint64_t key = each.keys[i];
      all[copied] = key << 32 | static_cast<uint32_t>(each.indices[i]);
      copied += bin_of(each.keys[i]) == bin;  // nothing would predict a branch
    }
  }
  std::nth_element(all.begin(), all.begin() + (count - 1), all.begin() + keys);
  const bool all_ties = job.rule == Rule::THRESHOLD;
  block.key = static_cast<int32_t>(all[count - 1] >> 32);
  block.last_tie = all_ties ? std::numeric_limits<int32_t>::max()
                            : static_cast<int32_t>(all[count - 1] & 0xffffffff);
}
