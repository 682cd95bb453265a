// One triangle of H += X^T X for X in bf16, in AMX tiles, which multiply bf16 exactly and sum in
// float32.
//
// Rows of X are taken BATCH at a time and packed into the two orders in which tiles are loaded, of
// STEP rows and 16 features each: a left tile is [feature][row], a right one [pair of rows][feature]
// [row of the pair]. H is walked in squares on and below its diagonal:
//
//            right, 32 wide
//           +----+----+----+     2 x 2 tiles of sums stay in tile registers over KC rows, a right
//   left    |####                panel in the L1 cache over the blocks below each other, the sums of
//   32 tall |#########           a square and its left panels in the L2 cache, until all rows of the
//           |##############      batch are in them. Then they are added to H, row by row.
//
// An entry of H receives, batch after batch, the batch's sum: STEP rows at a time, the even and the
// odd ones of them apart. The same bits for any number of threads, either layout of H and every
// place in a tile.

#include "hessian_amx.h"

#if defined(RAC_HAS_AMX)

#include <immintrin.h>

namespace {

constexpr int64_t STEP = 32;          // rows in a tile
constexpr int64_t TILE = 512;         // bf16 values in a tile of either order
constexpr int64_t SIDE = 32;          // of a block of sums: two tiles
constexpr int64_t PANEL = 2 * TILE;   // values of SIDE features in STEP rows
constexpr int64_t BLOCK = SIDE * SIDE;  // sums in a block
#ifndef BATCH_
#define BATCH_ 1024
#endif
#ifndef KC_
#define KC_ 256
#endif
#ifndef SQ_
#define SQ_ 256
#endif
constexpr int64_t BATCH = BATCH_, DEPTH = KC_ / STEP;
constexpr int64_t SQUARE = SQ_, SMALLEST_SQUARE = 64;

using Half = uint16_t;

// What a thread tells its tile unit: all tiles are 16 rows of 64 bytes.
struct alignas(64) TileShapes {
  constexpr TileShapes() {
    for (int tile = 0; tile < 8; ++tile) {
      bytes[tile] = 64;
      rows[tile] = 16;
    }
  }
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

// Panels of a batch: [SIDE features][STEP rows][2 tiles].
struct TilePanels {
  TilePanels(int64_t features, int64_t rows)
      : strips((features + SIDE - 1) / SIDE), steps((std::min(rows, BATCH) + STEP - 1) / STEP) {
    const int64_t bytes = 2 * strips * steps * PANEL * static_cast<int64_t>(sizeof(Half));
    const int64_t align = bytes < HUGE_PAGE ? 64 : HUGE_PAGE;
    memory_.reset(static_cast<Half*>(std::aligned_alloc(align, (bytes + align - 1) / align * align)));
    if (!memory_) throw std::bad_alloc();
    advise_huge_pages(memory_.get(), bytes);
    left = memory_.get();
    right = left + strips * steps * PANEL;
  }
  int64_t strips, steps;  // a panel of SIDE features takes `steps` steps, used or not
  Half *left, *right;

 private:
  struct Free {
    void operator()(Half* memory) const { std::free(memory); }
  };
  std::unique_ptr<Half[], Free> memory_;
};

// Both tiles of 16 features of STEP rows: x[k] is row k of them.
RAC_INLINE void pack_tile(const Half* const* x, int64_t column, Half* left, Half* right) {
  using U16 = Halves<16>::U16;
  using U32 = Halves<16>::U32;
#pragma GCC unroll 4
  for (int64_t pair = 0; pair < STEP / 2; ++pair) {
    U16 even, odd;
    std::memcpy(&even, x[2 * pair] + column, sizeof(even));
    std::memcpy(&odd, x[2 * pair + 1] + column, sizeof(odd));
    const U32 both = __builtin_convertvector(even, U32) | __builtin_convertvector(odd, U32) << 16;
    std::memcpy(right + pair * 32, &both, sizeof(both));
  }
  // Pairs of rows are words that move together.
  const auto* from = reinterpret_cast<const float*>(right);
  auto* to = reinterpret_cast<float*>(left);
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 16; j += 4) transpose_4x4(from + i * 16 + j, 16, to + j * 16 + i, 16);
  }
}

constexpr int64_t GROUP = 8;  // strips packed in a task

// A group of strips in one step of the batch that begins at row `first`. Rows and features that
// are not there are zeros.
RAC_INLINE void pack_group(const TriangleUpdate& job, const Rows& rows, int64_t first,
                           int64_t step, int64_t group, const TilePanels& panels) {
  alignas(64) static const Half zeros[GROUP * SIDE] = {};
  alignas(64) Half last[STEP][SIDE] = {};
  const Half* x[STEP];
  const int64_t begin = group * GROUP * SIDE;
  const int64_t end = std::min(begin + GROUP * SIDE, job.features);
  for (int64_t k = 0; k < STEP; ++k) {
    const int64_t row = first + step * STEP + k;
    x[k] = zeros;
    if (row < rows.size()) {
      x[k] = static_cast<const Half*>(job.x) + rows.index[row] * job.stride_x + begin;
    }
  }
  for (int64_t column = begin; column < end; column += SIDE) {
    const int64_t at = (column / SIDE * panels.steps + step) * PANEL;
    int64_t offset = column - begin;
    if (column + SIDE > end) {
      for (int64_t k = 0; k < STEP; ++k) {
        std::memcpy(last[k], x[k] + offset, (end - column) * sizeof(Half));
        x[k] = last[k];
      }
      offset = 0;
    }
    pack_tile(x, offset, panels.left + at, panels.right + at);
    pack_tile(x, offset + 16, panels.left + at + TILE, panels.right + at + TILE);
  }
}

// What is read later: 16 times two cache lines.
struct Ahead {
  const void* lines;
  int64_t stride;  // bytes
};

RAC_INLINE void fetch(const Ahead& ahead, int64_t n) {
  const char* at = static_cast<const char*>(ahead.lines) + n * ahead.stride;
  __builtin_prefetch(at, 0, 2);
  __builtin_prefetch(at + 64, 0, 2);
}

// sums [2][2][16][16] (+)= left^T right over `steps` steps.
RAC_AMX inline void multiply_block(const Half* left, const Half* right, int64_t steps, bool add,
                                   const Ahead& first, const Ahead& second, float* sums) {
  constexpr int64_t ROW = 64;  // bytes
  const int64_t share = (16 + steps - 1) / steps;
  if (add) {
    _tile_loadd(0, sums, ROW);
    _tile_loadd(1, sums + 256, ROW);
    _tile_loadd(2, sums + 512, ROW);
    _tile_loadd(3, sums + 768, ROW);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t n = step * share; n < (step + 1) * share; ++n) {
      fetch(first, n);
      fetch(second, n);
    }
    _tile_loadd(4, left + step * PANEL, ROW);
    _tile_loadd(5, left + step * PANEL + TILE, ROW);
    _tile_loadd(6, right + step * PANEL, ROW);
    _tile_loadd(7, right + step * PANEL + TILE, ROW);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, ROW);
  _tile_stored(1, sums + 256, ROW);
  _tile_stored(2, sums + 512, ROW);
  _tile_stored(3, sums + 768, ROW);
}

struct Square {
  int64_t row, column, row_end, column_end;
};

// H[i:i+SIDE, j:j+SIDE] += sums, on and below the diagonal.
RAC_AMX inline void add_block(const TriangleUpdate& job, int64_t i, int64_t j, const float* sums) {
  const bool whole = i + SIDE <= job.features && j < i;
  const int64_t rows = std::min(SIDE, job.features - i);
  for (int64_t r = 0; r < rows; ++r) {
    float* out = row_of(job, i + r) + j;
    const float* from = sums + r / 16 * 512 + r % 16 * 16;
    if (whole) {
#pragma GCC unroll 2
      for (int64_t c = 0; c < SIDE; c += 16) {
        F32<16> entries, more;
        std::memcpy(&entries, out + c, sizeof(entries));
        std::memcpy(&more, from + c * 16, sizeof(more));
        entries += more;
        std::memcpy(out + c, &entries, sizeof(entries));
      }
      continue;
    }
    const int64_t columns = std::min(SIDE, i + r - j + 1);
    for (int64_t c = 0; c < columns; ++c) out[c] += from[c / 16 * 256 + c % 16];
  }
}

// Where a block of H lies.
RAC_INLINE Ahead rows_of(const TriangleUpdate& job, int64_t i, int64_t j) {
  if (i >= job.features) i = j = 0;
  const float* first = row_of(job, i);
  const int64_t stride = i + 1 < job.features ? row_of(job, i + 1) - first : 0;
  return {first + j, stride * static_cast<int64_t>(sizeof(float))};
}

RAC_AMX inline void add_square(const TriangleUpdate& job, const TilePanels& panels, int64_t steps,
                               const Square& at, float* sums) {
  const int64_t across = (SQUARE / SIDE) * BLOCK;
  for (int64_t step = 0; step < steps; step += DEPTH) {
    const int64_t depth = std::min(DEPTH, steps - step);
    for (int64_t i = at.row; i < at.row_end; i += SIDE) {
      const Half* left = panels.left + (i / SIDE * panels.steps + step) * PANEL;
      const int64_t end = std::min(at.column_end, i + SIDE);
      for (int64_t j = at.column; j < end; j += SIDE) {
        const Half* right = panels.right + (j / SIDE * panels.steps + step) * PANEL;
        float* block = sums + (i - at.row) / SIDE * across + (j - at.column) / SIDE * BLOCK;
        Ahead first, second;
        if (step + DEPTH < steps) {
          const int64_t n = (j - at.column) / SIDE, m = (i - at.row) / SIDE;
          const int64_t share = 16 * 64;  // values
          first = {left + DEPTH * PANEL + n * share, 128};
          second = {right + DEPTH * PANEL + m * share, 128};
          multiply_block(left, right, depth, step > 0, first, second, block);
        } else {
          const bool last = j + SIDE >= end;
          first = rows_of(job, last ? i + SIDE : i, last ? at.column : j + SIDE);
          second = first;
          second.lines = static_cast<const char*>(first.lines) + 16 * first.stride;
          multiply_block(left, right, depth, step > 0, first, second, block);
          add_block(job, i, j, block);
        }
      }
    }
  }
}

RAC_AMX void update(const TriangleUpdate& job, const Rows& rows, const TilePanels& panels,
                    const Team& team, std::atomic<int64_t>& next) {
  const auto squares = [&](int64_t side) {
    const int64_t sides = (job.features + side - 1) / side;
    return sides * (sides + 1) / 2;
  };
  int64_t side = SQUARE;
  while (side > SMALLEST_SQUARE && squares(side) < 8 * job.threads) side /= 2;
  AlignedArray<float> sums(SQUARE * SQUARE, false);
  static constexpr TileShapes shapes;  // not on the stack: compilers think 8 bytes of it are read
  _tile_loadconfig(&shapes);
  for (int64_t first = 0; first < rows.size(); first += BATCH) {
    const int64_t steps = (std::min(BATCH, rows.size() - first) + STEP - 1) / STEP;
    if (team.thread == 0) next = 0;
    const int64_t groups = (panels.strips + GROUP - 1) / GROUP;
    for (int64_t task = team.begin(steps * groups); task < team.end(steps * groups); ++task) {
      pack_group(job, rows, first, task / groups, task % groups, panels);
    }
    team.wait();
    // Tiles are loaded by assembly of which compilers do not know that it reads memory.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    for (int64_t task = next++; task < squares(side); task = next++) {
      int64_t row = 0;  // squares are numbered row by row
      while ((row + 1) * (row + 2) / 2 <= task) ++row;
      const int64_t column = task - row * (row + 1) / 2;
      const int64_t row_end = std::min((row + 1) * side, job.features);
      add_square(job, panels, steps,
                 {row * side, column * side, row_end, std::min((column + 1) * side, row_end)},
                 sums.get());
    }
    team.wait();
  }
  _tile_release();
}

}  // namespace

bool takes_amx(const TriangleUpdate& job, const Rows& rows) {
  return current_isa() == Isa::AMX && job.dtype == 1 && rows.plain;
}

void hessian_accumulate_amx(const TriangleUpdate& job, const Rows& rows) {
  const TilePanels panels(job.features, rows.size());
  std::atomic<int64_t> next{0};
  run_team(job.threads, [&](const Team& team) { update(job, rows, panels, team, next); });
}

#endif
