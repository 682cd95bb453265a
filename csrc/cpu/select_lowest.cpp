// Two reads of the keys. The first counts them by their 11 leading bits (exponent and 3 bits of
// fraction), which tells the bin that holds the count-th smallest; the second copies that bin, a
// few percent of the keys, in the order of their index. The rest is done on the copy.

#include "select_lowest.h"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

namespace {

constexpr int SHIFT = 20;  // the sign bit is 0: 31 bits, of which 11 name the bin
constexpr int BINS = 1 << 11;
using Histogram = std::array<int64_t, BINS>;

struct Candidate {
  int32_t key;
  int64_t index;
};

Histogram count_bins(const int32_t* keys, int64_t size, int threads) {
  Histogram total{};
#pragma omp parallel num_threads(threads)
  {
    // Neighbours often fall into one bin; two counters a bin halve the wait for the last store.
    Histogram even{}, odd{};
#pragma omp for schedule(static) nowait
    for (int64_t pair = 0; pair < size / 2; ++pair) {
      ++even[keys[2 * pair] >> SHIFT];
      ++odd[keys[2 * pair + 1] >> SHIFT];
    }
#pragma omp critical(select_lowest_merge)
    for (int bin = 0; bin < BINS; ++bin) total[bin] += even[bin] + odd[bin];
  }
  if (size % 2 == 1) ++total[keys[size - 1] >> SHIFT];
  return total;
}

std::vector<Candidate> copy_bin(const int32_t* keys, int64_t size, int bin, int threads) {
  std::vector<std::vector<Candidate>> parts(threads);
  // One part per share of the list, whoever computes it: their order is that of the indices.
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; ++part) {
    std::vector<Candidate> mine;
    const int64_t end = size * (part + 1) / threads;
    for (int64_t i = size * part / threads; i < end; ++i) {
      if (keys[i] >> SHIFT == bin) mine.push_back({keys[i], i});
    }
    parts[part] = std::move(mine);
  }
  std::vector<Candidate> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace

Selection select_lowest(const int32_t* keys, int64_t size, int64_t count, bool all_ties,
                        int threads) {
  if (count <= 0) return {0, -1};
  const Histogram bins = count_bins(keys, size, threads);
  int bin = 0;
  while (count > bins[bin]) count -= bins[bin++];  // now: the count-th smallest of this bin

  const std::vector<Candidate> candidates = copy_bin(keys, size, bin, threads);
  std::vector<int32_t> values(candidates.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = candidates[i].key;
  std::nth_element(values.begin(), values.begin() + (count - 1), values.end());
  const int32_t key = values[count - 1];
  if (all_ties) return {key, std::numeric_limits<int64_t>::max()};

  int64_t ties = count;  // how many keys equal to `key` are chosen
  for (const Candidate& candidate : candidates) ties -= candidate.key < key;
  for (const Candidate& candidate : candidates) {
    if (candidate.key == key && --ties == 0) return {key, candidate.index};
  }
  return {key, -1};  // not reached: `count` keys of the bin are not above `key`
}
