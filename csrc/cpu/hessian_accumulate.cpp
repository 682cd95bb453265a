// One triangle of H += X^T diag(w) X: a blocked matrix product whose operands are both X.
//
// Rows of X are taken KC at a time and copied, as float32, into panels that the inner loop reads in
// order: MR features wide for the left operand (times the row's weight), NR wide for the right one.
// Rows of weight 0 are left out. H is walked in squares on and below its diagonal:
//
//           right, NR wide
//          +---+---+---+---+      MR x NR sums stay in registers over KC rows, a right panel in the
//    left  |###                   L1 cache over the tiles below each other, the panels of a square
//    MR    |#######               in the L2 cache. A tile that the diagonal cuts is computed whole
//    tall  |###########           and added entry by entry: nothing above the diagonal is written.
//
// An entry of H receives, chunk after chunk of KC weighted rows, the chunk's sum in order of rows:
// the same bits for any number of threads, either layout of H and every place in a tile, and the
// same for AVX2 and AVX-512, which fuse a product with its sum; the baseline rounds both. On CPUs
// that have AMX, bf16 rows without weights go to hessian_amx.cpp.

#include <algorithm>

#include "hessian_amx.h"
#include "kernels.h"
#include "lanes.h"
#include "panels.h"

namespace {

constexpr int64_t SQUARE = 192;  // side of a square of H; STRIP when that gives too few squares
// Below, the time of a chunk goes to reading and writing H, which is then walked along its rows.
constexpr int64_t FEW_ROWS = 64;

// In registers: MR * NV sums, NV vectors of the right operand, one broadcast of the left.
template <int L>
struct Tile;
template <>
struct Tile<4> {
  static constexpr int MR = 4, NV = 2;
};
template <>
struct Tile<8> {
  static constexpr int MR = 4, NV = 3;
};
template <>
struct Tile<16> {
  static constexpr int MR = 12, NV = 2;
};

// Where a tile of H begins.
struct Place {
  int64_t i, j;
};

// sum[r][v] += left[r] right[v] of row k of a chunk.
template <int L>
RAC_INLINE void add_row(const float* left, const float* right, int64_t k,
                        F32<L> (&sum)[Tile<L>::MR][Tile<L>::NV]) {
  constexpr int MR = Tile<L>::MR, NV = Tile<L>::NV;
  const auto* from = reinterpret_cast<const F32<L>*>(right) + k * NV;
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) {
    const float scalar = left[k * MR + r];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sum[r][v] += scalar * from[v];
  }
}

// H[i:i+MR, j:j+NR] += left^T right over `depth` rows, on and below the diagonal; `next` is the tile
// after this one. A tile is asked for before its sums are made; an AVX-512 tile, where there are rows
// enough, line by line during the one before: all at once, its lines keep what the sums need waiting.
template <int L>
RAC_INLINE void add_tile(const TriangleUpdate& job, const float* left, const float* right,
                         int64_t depth, const Place& at, const Place& next) {
  constexpr int MR = Tile<L>::MR, NV = Tile<L>::NV, NR = NV * L, GROUP = 8;
  const int64_t i = at.i, j = at.j;
  const bool whole = i + MR <= job.features && j + NR - 1 <= i;
  const bool early = L == 16 && depth >= 2 * GROUP * MR;
  float *out[MR], *after[MR];
  for (int r = 0; r < MR; ++r) {
    out[r] = row_of(job, std::min(i + r, job.features - 1)) + j;
    if (early) after[r] = row_of(job, std::min(next.i + r, job.features - 1)) + next.j;
    for (int c = 0; whole && !early && c < NR; c += 16) __builtin_prefetch(out[r] + c, 1);
  }
  F32<L> sum[MR][NV] = {};
  int64_t k = 0;
  for (int line = 0; early && k + GROUP <= depth; ++line, k += GROUP) {
    __builtin_prefetch(after[std::min(line / 2, MR - 1)] + line % 2 * (NR - 1), 1);
#pragma GCC unroll 8
    for (int row = 0; row < GROUP; ++row) add_row<L>(left, right, k + row, sum);
  }
#pragma GCC unroll 4
  for (; k < depth; ++k) add_row<L>(left, right, k, sum);
  if (!whole) {
    alignas(64) float sums[MR][NR];
    std::memcpy(sums, sum, sizeof(sums));
    for (int64_t r = 0; r < std::min<int64_t>(MR, job.features - i); ++r) {
      for (int64_t c = 0; c < std::min<int64_t>(NR, i + r - j + 1); ++c) out[r][c] += sums[r][c];
    }
    return;
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      F32<L> entries;
      std::memcpy(&entries, out[r] + v * L, sizeof(entries));
      entries += sum[r][v];
      std::memcpy(out[r] + v * L, &entries, sizeof(entries));
    }
  }
}

// One square of H, over all packed rows.
template <int L>
RAC_INLINE void add_square(const TriangleUpdate& job, const Panels& panels, int64_t packed,
                           int64_t row, int64_t column, int64_t side) {
  constexpr int64_t MR = Tile<L>::MR, NR = Tile<L>::NV * L;
  const int64_t row_end = std::min(row + side, job.features);
  const int64_t column_end = std::min(column + side, row_end);
  for (int64_t offset = 0; offset < packed; offset += KC) {
    const int64_t depth = std::min(KC, packed - offset);
    const float* left = panels.left + offset * panels.padded;
    const float* right = panels.right + offset * panels.padded;
    // Tiles that are all above the diagonal are left out.
    if (depth < FEW_ROWS) {
      for (int64_t i = row; i < row_end; i += MR) {
        for (int64_t j = column; j < std::min(column_end, i + MR); j += NR) {
          add_tile<L>(job, left + i * depth, right + j * depth, depth, {i, j}, {i, j + NR});
        }
      }
      continue;
    }
    for (int64_t j = column; j < column_end; j += NR) {
      for (int64_t i = std::max(row, j / MR * MR); i < row_end; i += MR) {
        const Place below{i + MR, j}, right_of{std::max(row, (j + NR) / MR * MR), j + NR};
        add_tile<L>(job, left + i * depth, right + j * depth, depth, {i, j},
                    i + MR < row_end ? below : right_of);
      }
    }
  }
}

// The whole update, shared among the threads of the team.
template <int L, typename T>
RAC_INLINE void update(const TriangleUpdate& job, const Rows& rows, const Panels& panels,
                       const Team& team, std::atomic<int64_t>& next) {
  const int64_t strips = (job.features + STRIP - 1) / STRIP;
  const auto squares = [&](int64_t side) {
    const int64_t sides = (job.features + side - 1) / side;
    return sides * (sides + 1) / 2;
  };
  const int64_t side = squares(SQUARE) < 8 * job.threads ? STRIP : SQUARE;
  for (int64_t first = 0; first < rows.size(); first += panels.rows) {
    const int64_t packed = std::min(panels.rows, rows.size() - first);
    if (team.thread == 0) next = 0;
    const int64_t tasks = (packed + KC - 1) / KC * strips;
    for (int64_t task = team.begin(tasks); task < team.end(tasks); ++task) {
      const int64_t offset = task / strips * KC;
      const int64_t depth = std::min(KC, packed - offset);
      pack_strip<L, Tile<L>::MR, Tile<L>::NV * L, T>(job, rows, first + offset, depth, offset,
                                                     task % strips, panels);
    }
    team.wait();
    for (int64_t task = next++; task < squares(side); task = next++) {
      int64_t row = 0;  // squares are numbered row by row
      while ((row + 1) * (row + 2) / 2 <= task) ++row;
      const int64_t column = task - row * (row + 1) / 2;
      add_square<L>(job, panels, packed, row * side, column * side, side);
    }
    team.wait();
  }
}

template <int L>
RAC_INLINE void update_of(const TriangleUpdate& job, const Rows& rows, const Panels& panels,
                          const Team& team, std::atomic<int64_t>& next) {
  if (job.dtype == 0) update<L, Float>(job, rows, panels, team, next);
  else if (job.dtype == 1) update<L, BFloat16>(job, rows, panels, team, next);
  else update<L, Float16>(job, rows, panels, team, next);
}

void update_baseline(const TriangleUpdate& job, const Rows& rows, const Panels& panels,
                     const Team& team, std::atomic<int64_t>& next) {
  update_of<4>(job, rows, panels, team, next);
}
RAC_AVX2 void update_avx2(const TriangleUpdate& job, const Rows& rows, const Panels& panels,
                          const Team& team, std::atomic<int64_t>& next) {
  update_of<8>(job, rows, panels, team, next);
}
RAC_AVX512 void update_avx512(const TriangleUpdate& job, const Rows& rows, const Panels& panels,
                              const Team& team, std::atomic<int64_t>& next) {
  update_of<16>(job, rows, panels, team, next);
}

}  // namespace

void hessian_accumulate(const TriangleUpdate& job, const Rows& rows, const Panels& panels,
                        const Team& team, std::atomic<int64_t>& next) {
  pick(update_baseline, update_avx2, update_avx512)(job, rows, panels, team, next);
}

void hessian_accumulate(const TriangleUpdate& job) {
  const Rows rows(job);
  if (rows.size() == 0 || job.features == 0) return;
#if defined(RAC_HAS_AMX)
  if (current_isa() == Isa::AMX && job.dtype == 1 && rows.plain && rows.size() >= AMX_ROWS) {
    TriangleUpdate update = job;
    const int64_t work = job.features * job.features * (rows.size() + AMX_ENTRY_ROWS);
    if (work < AMX_PARALLEL) update.threads = 1;
    return hessian_accumulate_amx(update, rows);
  }
#endif
  const Panels panels(job.features, rows.size(), job.threads);
  std::atomic<int64_t> next{0};
  run_team(job.threads,
           [&](const Team& team) { hessian_accumulate(job, rows, panels, team, next); });
}
