// Rows of X in bf16, copied into the two orders in which AMX multiplies tiles of them.
#pragma once

#include "panels.h"

using Half = uint16_t;

constexpr int64_t STEP = 32;          // rows in a tile, in pairs
constexpr int64_t WIDE = 16;          // features in a tile
constexpr int64_t TILE = STEP * WIDE;
constexpr int64_t SIDE = 2 * WIDE;    // features in a panel: two tiles beside each other
constexpr int64_t PANEL = STEP * SIDE;  // values of a panel in one step
constexpr int64_t BATCH = 2048;       // rows packed at a time
constexpr int64_t GROUP = 8;          // panels in a task of packing

// Memory for the panels of a batch: twice its rows, at most 8 KB * D.
struct TilePanels {
  TilePanels(int64_t features, int64_t rows)
      : count((features + SIDE - 1) / SIDE), steps((std::min(rows, BATCH) + STEP - 1) / STEP) {
    const int64_t values = count * steps * PANEL;
    memory_ = panel_memory(2 * values * static_cast<int64_t>(sizeof(Half)));
    left = static_cast<Half*>(memory_.get());
    right = left + values;
  }
  int64_t count, steps;
  // [panel][step][2 tiles]; a left tile is [feature][row], a right one [pair of rows][feature][2].
  Half *left, *right;

 private:
  PanelMemory memory_;
};

// Both tiles of WIDE features, `column` and after, of STEP rows.
RAC_INLINE void pack_tile(const Half* const* rows, int64_t column, Half* left, Half* right) {
  using U16 = Halves<16>::U16;
  using U32 = Halves<16>::U32;
#pragma GCC unroll 4
  for (int64_t pair = 0; pair < STEP / 2; ++pair) {
    U16 even, odd;
    std::memcpy(&even, rows[2 * pair] + column, sizeof(even));
    std::memcpy(&odd, rows[2 * pair + 1] + column, sizeof(odd));
    const U32 both = __builtin_convertvector(even, U32) | __builtin_convertvector(odd, U32) << 16;
    std::memcpy(right + pair * SIDE, &both, sizeof(both));
  }
  // A pair stays together: words are transposed.
  const auto* from = reinterpret_cast<const float*>(right);
  auto* to = reinterpret_cast<float*>(left);
  for (int64_t i = 0; i < WIDE; i += 4) {
    for (int64_t j = 0; j < WIDE; j += 4) {
      transpose_4x4(from + i * WIDE + j, WIDE, to + j * WIDE + i, WIDE);
    }
  }
}

// A group of panels in one step of the batch that begins with row `first`. Rows and features past
// the last are zeros.
RAC_INLINE void pack_group(const TriangleUpdate& job, const Rows& rows, int64_t first,
                           int64_t step, int64_t group, const TilePanels& panels) {
  alignas(64) static const Half zeros[GROUP * SIDE] = {};
  alignas(64) Half padded[STEP][SIDE] = {};
  const int64_t begin = group * GROUP * SIDE;
  const int64_t columns = std::min(GROUP * SIDE, job.features - begin);
  const Half* x[STEP];
  for (int64_t k = 0; k < STEP; ++k) {
    const int64_t row = first + step * STEP + k;
    x[k] = zeros;
    if (row < rows.size()) {
      x[k] = static_cast<const Half*>(job.x) + rows.index[row] * job.stride_x + begin;
    }
  }
  for (int64_t column = 0; column < columns; column += SIDE) {
    const int64_t at = ((begin + column) / SIDE * panels.steps + step) * PANEL;
    int64_t from = column;
    if (column + SIDE > columns) {
      for (int64_t k = 0; k < STEP; ++k) {
        std::memcpy(padded[k], x[k] + column, (columns - column) * sizeof(Half));
        x[k] = padded[k];
      }
      from = 0;
    }
    for (int64_t tile = 0; tile < 2; ++tile) {
      pack_tile(x, from + tile * WIDE, panels.left + at + tile * TILE,
                panels.right + at + tile * TILE);
    }
  }
}
