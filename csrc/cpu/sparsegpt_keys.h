// The exact count-th lowest score of a block, without sorting it or keeping its scores: a first
// pass counts them by their leading bits (exponent and 5 bits of fraction), which tells the bin
// that holds the count-th; a second copies that bin, a percent of them; the rest is done on the
// copy. Scores are computed anew each time, as integers that order as they do (sparsegpt_lanes.h).
#pragma once

#include <cstdint>
#include <vector>

#include "sparsegpt.h"

constexpr int BIN_SHIFT = 18;  // the sign bit is 0: 31 bits, of which 13 name the bin
constexpr int BINS = 1 << 13;

// What one thread found in its tiles. A candidate is a key, and below it the weight's row-major
// index in the block: ordered by key, ties by lowest index.
struct alignas(64) Found {
  // Neighbours often fall into one bin; two counters a bin halve the wait for the last store.
  std::vector<uint32_t> even = std::vector<uint32_t>(BINS), odd = std::vector<uint32_t>(BINS);
  std::vector<uint64_t> candidates;
  int64_t copied = 0;
};

void count_keys(const SparseGPT& job, const Columns& columns, const Block& block,
                const Team& team, Found& found);
void copy_keys(const SparseGPT& job, const Columns& columns, const Block& block, const Team& team,
               int bin, Found& found);
