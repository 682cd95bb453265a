#include "radix_select.h"

#include <array>
#include <limits>
#include <vector>

namespace {

constexpr int MAX_BINS = 2048;
using Histogram = std::array<int64_t, MAX_BINS>;

// How many keys whose bits above `shift + bits` equal `prefix` fall into each bin.
Histogram count_bins(const int32_t* keys, int64_t size, int32_t prefix, int shift, int bits,
                     int threads) {
  Histogram total{};
#pragma omp parallel num_threads(threads)
  {
    Histogram mine{};
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < size; ++i) {
      if (static_cast<int64_t>(keys[i]) >> (shift + bits) == prefix) {
        ++mine[(keys[i] >> shift) & ((1 << bits) - 1)];
      }
    }
#pragma omp critical(radix_select_merge)
    for (int bin = 0; bin < (1 << bits); ++bin) total[bin] += mine[bin];
  }
  return total;
}

}  // namespace

Selection radix_select(const int32_t* keys, int64_t size, int64_t count, bool all_ties,
                       int threads) {
  constexpr int64_t EVERY = std::numeric_limits<int64_t>::max();
  if (count <= 0) return {0, -1};
  // The sign bit is 0: 31 bits are left, the first pass takes the exponent and 3 bits of fraction.
  constexpr int PASSES[3][2] = {{20, 11}, {10, 10}, {0, 10}};  // shift, bits
  int32_t prefix = 0;
  int64_t wanted = count;
  int64_t ties = 0;
  for (const auto& [shift, bits] : PASSES) {
    const Histogram bins = count_bins(keys, size, prefix, shift, bits, threads);
    int bin = 0;
    while (wanted > bins[bin]) wanted -= bins[bin++];
    prefix = (prefix << bits) | bin;
    ties = bins[bin];
  }
  if (all_ties || wanted == ties) return {prefix, EVERY};
  int64_t index = -1;
  while (wanted > 0) wanted -= keys[++index] == prefix;
  return {prefix, index};
}
