// One triangle of H += X^T X for X in bf16, by AMX: products of tiles of 16 x 32 and 32 x 16
// values, exact and summed in float32.
//
// Rows of X are taken BATCH at a time and packed into tiles (amx_panels.h). H is walked in squares
// on and below its diagonal:
//
//              right, 32 wide
//             +----+----+----+   The 2 x 2 tiles of a block's sums stay in registers over DEPTH
//      left   |####              steps of STEP rows, a left panel of so many in the L1 cache over
//      32     |#########         the blocks beside each other, all sums and panels of a square in
//      tall   |##############    the L2 cache until every row of the batch is in them. A block is
//                                then added to H: nothing above the diagonal is written.
//
// An entry of H receives, batch after batch, the batch's sum: a step at a time, of which first the
// even and the odd rows are summed apart. The same bits for any number of threads, either layout of
// H and every place in a tile. Subnormal values and sums count as zero.

#include "hessian_amx.h"

#if defined(RAC_HAS_AMX)

#include <immintrin.h>

#include "amx.h"
#include "amx_panels.h"

namespace {

constexpr int64_t DEPTH = 8;      // steps
constexpr int64_t SQUARE = 256;   // side of a square of H; halved where that gives too few
constexpr int64_t LEAST_SQUARE = 64;
constexpr int64_t BLOCK = SIDE * SIDE;

// What is read soon: 16 times two cache lines, `stride` bytes apart.
struct Ahead {
  const char* lines;
  int64_t stride;
};

RAC_INLINE void fetch(const Ahead& ahead, int64_t n) {
  __builtin_prefetch(ahead.lines + n * ahead.stride, 0, 2);
  __builtin_prefetch(ahead.lines + n * ahead.stride + 64, 0, 2);
}

// sums [2][2][16][16] = left^T right over `steps` steps, on top of what they were if `add`.
RAC_AMX inline void multiply_block(const Half* left, const Half* right, int64_t steps, bool add,
                                   const Ahead (&ahead)[2], float* sums) {
  constexpr int64_t ROW = 64, SUMS = WIDE * WIDE;
  const int64_t share = (16 + steps - 1) / steps;
  if (add) {
    _tile_loadd(0, sums, ROW);
    _tile_loadd(1, sums + SUMS, ROW);
    _tile_loadd(2, sums + 2 * SUMS, ROW);
    _tile_loadd(3, sums + 3 * SUMS, ROW);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = 0; step < steps; ++step, left += PANEL, right += PANEL) {
    for (int64_t n = step * share; n < (step + 1) * share; ++n) {
      fetch(ahead[0], n);
      fetch(ahead[1], n);
    }
    _tile_loadd(4, left, ROW);
    _tile_loadd(6, right, ROW);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right + TILE, ROW);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, left + TILE, ROW);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, ROW);
  _tile_stored(1, sums + SUMS, ROW);
  _tile_stored(2, sums + 2 * SUMS, ROW);
  _tile_stored(3, sums + 3 * SUMS, ROW);
}

// H[i:i+SIDE, j:j+SIDE] += sums, on and below the diagonal.
RAC_AMX inline void add_block(const TriangleUpdate& job, int64_t i, int64_t j, const float* sums) {
  const bool whole = i + SIDE <= job.features && j < i;
  for (int64_t r = 0; r < std::min(SIDE, job.features - i); ++r) {
    float* out = row_of(job, i + r) + j;
    const float* from = sums + (r / WIDE * 2 * WIDE + r % WIDE) * WIDE;
    for (int64_t half = 0; half < 2; ++half, out += WIDE, from += WIDE * WIDE) {
      if (whole) {
        F32<16> entries, more;
        std::memcpy(&entries, out, sizeof(entries));
        std::memcpy(&more, from, sizeof(more));
        entries += more;
        std::memcpy(out, &entries, sizeof(entries));
        continue;
      }
      const int64_t columns = std::min(WIDE, i + r - j - half * WIDE + 1);
      for (int64_t c = 0; c < columns; ++c) out[c] += from[c];
    }
  }
}

// The rows of H that make a block, in two halves.
RAC_INLINE void block_ahead(const TriangleUpdate& job, int64_t i, int64_t j, Ahead (&ahead)[2]) {
  i = std::min(i, job.features - 1);
  const float* first = row_of(job, i);
  const float* second = row_of(job, std::min(i + 1, job.features - 1));
  const int64_t stride = (second - first) * static_cast<int64_t>(sizeof(float));
  ahead[0] = {reinterpret_cast<const char*>(first + j), stride};
  ahead[1] = {ahead[0].lines + WIDE * stride, stride};
}

// One square of H, over all packed steps; sums [side / SIDE][side / SIDE][BLOCK].
RAC_AMX inline void add_square(const TriangleUpdate& job, const TilePanels& panels, int64_t steps,
                               int64_t row, int64_t column, int64_t side, float* sums) {
  constexpr int64_t TWO_LINES = 64;  // values
  const int64_t row_end = std::min(row + side, job.features);
  for (int64_t step = 0; step < steps; step += DEPTH) {
    const int64_t depth = std::min(DEPTH, steps - step);
    const bool last = step + DEPTH >= steps;
    for (int64_t i = row; i < row_end; i += SIDE) {
      const Half* left = panels.left + (i / SIDE * panels.steps + step) * PANEL;
      const int64_t end = std::min(column + side, i + SIDE);
      for (int64_t j = column; j < end; j += SIDE) {
        const Half* right = panels.right + (j / SIDE * panels.steps + step) * PANEL;
        const int64_t down = (i - row) / SIDE, across = (j - column) / SIDE;
        float* block = sums + down * side * SIDE + across * BLOCK;
        Ahead ahead[2];
        if (last) {  // the next block of H
          const bool row_ends = j + SIDE >= end;
          block_ahead(job, row_ends ? i + SIDE : i, row_ends ? column : j + SIDE, ahead);
        } else {  // this block's share of the next panels
          const Half* next = left + DEPTH * PANEL + across * WIDE * TWO_LINES;
          ahead[0] = {reinterpret_cast<const char*>(next), TWO_LINES * sizeof(Half)};
          next = right + DEPTH * PANEL + down * WIDE * TWO_LINES;
          ahead[1] = {reinterpret_cast<const char*>(next), TWO_LINES * sizeof(Half)};
        }
        multiply_block(left, right, depth, step > 0, ahead, block);
        if (last) add_block(job, i, j, block);
      }
    }
  }
}

// The whole update, shared among the threads of the team.
RAC_AMX void update(const TriangleUpdate& job, const Rows& rows, const TilePanels& panels,
                    const Team& team, std::atomic<int64_t>& next) {
  const auto squares = [&](int64_t side) {
    const int64_t sides = (job.features + side - 1) / side;
    return sides * (sides + 1) / 2;
  };
  int64_t side = SQUARE;
  while (side > LEAST_SQUARE && squares(side) < 8 * job.threads) side /= 2;
  AlignedArray<float> sums(side * side, false);
  _tile_loadconfig(&TILE_SHAPES);
  const int64_t groups = (panels.count + GROUP - 1) / GROUP;
  for (int64_t first = 0; first < rows.size(); first += BATCH) {
    const int64_t steps = (std::min(BATCH, rows.size() - first) + STEP - 1) / STEP;
    if (team.thread == 0) next = 0;
    for (int64_t task = team.begin(steps * groups); task < team.end(steps * groups); ++task) {
      pack_group(job, rows, first, task / groups, task % groups, panels);
    }
    team.wait();
    before_tile_loads();
    for (int64_t task = next++; task < squares(side); task = next++) {
      int64_t row = 0;  // squares are numbered row by row
      while ((row + 1) * (row + 2) / 2 <= task) ++row;
      const int64_t column = task - row * (row + 1) / 2;
      add_square(job, panels, steps, row * side, column * side, side, sums.get());
    }
    team.wait();
  }
  _tile_release();
}

}  // namespace

void hessian_accumulate_amx(const TriangleUpdate& job, const Rows& rows) {
  const TilePanels panels(job.features, rows.size());
  std::atomic<int64_t> next{0};
  run_team(job.threads, [&](const Team& team) { update(job, rows, panels, team, next); });
}

#endif
