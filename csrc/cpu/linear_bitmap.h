// linear_sparse for bitmap weights: a byte of the bitmap spreads its values out to eight columns, zeros
// elsewhere, by a byte shuffle. RB rows share the x that is loaded, and their values' addresses,
// each known only once the bits before it are counted, are found beside each other.
#pragma once

#include <algorithm>

#include "linear_values.h"

constexpr int64_t FETCHED_BITMAP = 4096;  // bytes of values fetched before they are needed

// A row of W; `bits` are the columns at hand, the next one lowest.
struct BitmapRow {
  const uint8_t* values;
  const uint8_t* codes;
  uint64_t bits;
};

// The next eight columns' shuffle, and a step over their values.
RAC_INLINE const uint8_t* next_shuffle(BitmapRow& row, int byte) {
  constexpr int SIZE = 5;  // of a shuffle: 2^5 bytes
  const int shift = 8 * byte - SIZE;
  const uint64_t moved = row.bits >> (shift & 63) | row.bits << (-shift & 63);  // rotated: one rorx
  const uint64_t offset = moved & (255 << SIZE);  // has as many bits set as the byte
  row.values += 2 * __builtin_popcountll(offset);
  return SHUFFLES_BITMAP.bytes[0] + offset;
}

// sum += L columns of RB rows, from byte `byte` of their bits on, times the x of TB tokens.
template <typename Set, typename V, int RB, int TB>
RAC_INLINE void add_columns(BitmapRow (&rows)[RB], int byte, const float* x,
                            F32<Set::L> (&sum)[RB][TB]) {
  constexpr int L = Set::L;
  F32<L> weight[RB];
#pragma GCC unroll 4
  for (int r = 0; r < RB; ++r) {
    const uint8_t* values = rows[r].values;
    const uint8_t* shuffle = next_shuffle(rows[r], byte);
    if constexpr (L == 8) {
      weight[r] = V::template widen<Set>(Set::spread(values, shuffle));
    } else {
      const uint8_t* next = rows[r].values;
      const uint8_t* next_order = next_shuffle(rows[r], byte + 1);
      weight[r] = V::template widen<Set>(Set::spread(values, shuffle, next, next_order));
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < TB; ++t) {
    F32<L> lanes;
    std::memcpy(&lanes, x + t * L, sizeof(lanes));
    Set::keep(lanes);
#pragma GCC unroll 4
    for (int r = 0; r < RB; ++r) sum[r][t] += weight[r] * lanes;
  }
}

// y[token : token + TB, row : row + RB]; rows that there are not repeat the last.
template <typename Set, typename V, int RB, int TB>
RAC_INLINE void tile_bitmap(const SparseLinear& job, int64_t row, int64_t token,
                                const float* x) {
  constexpr int L = Set::L;
  constexpr int PARTS = RB * TB <= 2 ? 4 : RB * TB <= 4 ? 2 : 1;  // sums in flight hide latency
  const int64_t bytes = (job.columns + 7) / 8;
  BitmapRow rows[RB];
#pragma GCC unroll 4
  for (int r = 0; r < RB; ++r) {
    const int64_t at = std::min(row + r, job.rows - 1);
    rows[r] = {job.values + 2 * job.offsets[at], job.codes + at * bytes, 0};
  }
  F32<L> sum[PARTS][RB][TB] = {};
  // about what a row takes, for what is fetched of the next rows
  const int64_t length = 2 * (job.offsets[row + 1] - job.offsets[row]);
  int64_t byte = 0, ahead = FETCHED_BITMAP;
  for (; byte + 8 <= bytes; byte += 8, x += 64 * TB) {
    // The bitmap's rows are too short for a processor to see where they go: the next RB are fetched.
    __builtin_prefetch(rows[0].codes + RB * bytes + RB * byte, 0, 2);
    if (8 * (bytes - byte) <= FETCHED_BITMAP) ahead = FETCHED_BITMAP + (RB - 1) * length;
#pragma GCC unroll 4
    for (int r = 0; r < RB; ++r) {
      __builtin_prefetch(rows[r].values + ahead, 0, 2);
      std::memcpy(&rows[r].bits, rows[r].codes + byte, 8);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += L / 8) {
      add_columns<Set, V, RB, TB>(rows, i, x + i * 8 * TB, sum[i / (L / 8) % PARTS]);
    }
  }
  if (byte < bytes) {
#pragma GCC unroll 4
    for (int r = 0; r < RB; ++r) {
      rows[r].bits = 0;  // what follows the row's last byte is another row's
      std::memcpy(&rows[r].bits, rows[r].codes + byte, bytes - byte);
    }
#pragma GCC unroll 1
    for (; byte < bytes; byte += L / 8, x += L * TB) {
      add_columns<Set, V, RB, TB>(rows, 0, x, sum[0]);
#pragma GCC unroll 4
      for (int r = 0; r < RB; ++r) rows[r].bits >>= L;
    }
  }
  finish_rows<V, L>(job, row, token, sum);
}
