// The exact count-th lowest score of a block, without sorting it or keeping its scores: some of them,
// spread over the block, tell a window of keys that all but certainly holds the count-th; one pass
// counts what is below the window and copies what is in it, a fourteenth; the rest is done on the
// copies. Scores are computed anew each time, as integers that order as they do (sparsegpt_lanes.h).
#pragma once

#include <cstdint>
#include <vector>

#include "sparsegpt.h"

constexpr int BIN_SHIFT = 18;  // the sign bit is 0: 31 bits, of which 13 name a sample's bin
constexpr int BINS = 1 << 13, FINE_BINS = 1 << 11;

// Keys from the lowest to the highest.
struct Window {
  int32_t lowest, highest;
};

// What one thread found in its tiles.
struct alignas(64) Found {
  std::vector<uint32_t> sample = std::vector<uint32_t>(BINS);
  int64_t below = 0, inside = 0;       // the window
  std::vector<int32_t> keys, indices;  // of those inside; row-major in the block
  std::vector<uint32_t> fine = std::vector<uint32_t>(FINE_BINS);  // of those inside
};

// Count keys of a sample by their leading bits: of the weights that lie `step` apart.
void sample_keys(const SparseGPT& job, const Columns& columns, const Block& block,
                 const Team& team, int64_t step, Found& found);
// What `found` tells of the window.
void collect_keys(const SparseGPT& job, const Columns& columns, const Block& block,
                  const Team& team, const Window& window, Found& found);

// The block's `key` and `last_tie`: every thread finds them from what all found.
void select_block(const SparseGPT& job, const Columns& columns, const Team& team,
                  std::vector<Found>& found, Block& block);
