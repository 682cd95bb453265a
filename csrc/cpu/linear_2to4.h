// linear_sparse for 2:4 weights: x is picked to the packed values instead of the values being spread
// out to columns, so that no multiply-add is spent on a zero.
//
// A packed row is words of 32 bits: a group's two values (16 bits each), or two groups' (8 bits).
// Of four rows L words each are read and transposed within quarters of 128 bits:
//
//   r, r+1, r+2, r+3 :  w0 w1 w2 w3 | w4 w5 w6 w7     row by row, as packed
//   vector 0         :  w0 of the four rows | w4 of the four rows
//   vector 1         :  w1                  | w5           and so on to vector 3
//
// A quarter then holds four rows' values of the same group, whose four columns of x are a quarter
// of a register: vpermilps gives each row the x of its value, by two bits of the code. Codes lie as
// this needs them (codes_2to4), eight values' in each half of a word. A sum's quarters are the same
// rows.
#pragma once

#include <algorithm>

#include "linear_values.h"

constexpr int64_t FETCHED_2TO4 = 2048;  // bytes of a row fetched before they are needed

// Where x of a group of four columns lies in a block of it, and what a block is.
template <int L, int BYTES>
struct Block2to4 {
  static constexpr int GROUPS = 2 / BYTES;         // in a word
  static constexpr int VECTORS = 4 * GROUPS;       // of x
  static constexpr int COLUMNS = VECTORS * L;
  RAC_INLINE int64_t vector(int64_t group) {
    return group / GROUPS % 4 * GROUPS + group % GROUPS;
  }
  RAC_INLINE int64_t lane(int64_t group) { return group / GROUPS / 4 * 4; }
};

// Words PART and PART + 1 of every quarter of four rows, transposed: see above.
template <int L, int PART>
RAC_INLINE void transposed(const I32<L> (&rows)[4], I32<L> (&words)[2]) {
  const I32<L> low = interleave_words<L, PART>(rows[0], rows[1]);
  const I32<L> high = interleave_words<L, PART>(rows[2], rows[3]);
  words[0] = interleave_pairs<L, 0>(low, high);
  words[1] = interleave_pairs<L, 1>(low, high);
}

// Value `i` of each word as float32, times V::FACTOR.
template <typename Set, typename V>
RAC_INLINE F32<Set::L> value_of(I32<Set::L> words, int i) {
  constexpr int L = Set::L;
  if constexpr (V::FP8) {
    const I32<L> odd = i % 2 ? words : words << 8;
    return V::template place<L>(i < 2 ? Set::lower_halves(odd) : odd >> 4);
  } else {
    constexpr int BITS = 8 * V::BYTES;
    const int shift = 32 - BITS - i * BITS;
    I32<L> upper = shift ? words << shift : words;
    if (i > 0) upper &= static_cast<int32_t>(~0u << (32 - BITS));
    return V::template widen<Set>(upper);
  }
}

// Four rows of W, from where they are read next.
struct FourRows {
  const uint8_t* values;
  const uint8_t* codes;
  int64_t stride;  // bytes of a row
};

// Words of four rows; in the HALF of a block that may end a row of L = 16, the others are 0.
template <int L, bool HALF, int PART>
RAC_INLINE void read_words(const FourRows& rows, I32<L> (&words)[2]) {
  I32<L> read[4] = {};
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    std::memcpy(&read[r], rows.values + r * rows.stride, HALF ? 2 * L : 4 * L);
  }
  transposed<L, PART>(read, words);
}

// sum += the next block of four rows times the x of TB tokens.
template <typename Set, typename V, int TB, int PARTS, bool HALF>
RAC_INLINE void add_block(FourRows& rows, const float* x, F32<Set::L> (&sum)[PARTS][TB]) {
  constexpr int L = Set::L, GROUPS = 2 / V::BYTES, VALUES = 4 / V::BYTES;
  I32<L> codes = Set::template codes<GROUPS, HALF>(rows.codes);
#pragma GCC unroll 2
  for (int part = 0; part < 2; ++part) {
    I32<L> words[2];
    if (part == 0) read_words<L, HALF, 0>(rows, words);
    else read_words<L, HALF, 1>(rows, words);
#pragma GCC unroll 2
    for (int w = 0; w < 2; ++w) {
#pragma GCC unroll 4
      for (int i = 0; i < VALUES; ++i) {
        const float* from = x + ((part * 2 + w) * GROUPS + i / 2) * TB * L;
        const int step = (part * 2 + w) * VALUES + i;
        const F32<L> value = value_of<Set, V>(words[w], i);
        if (step == 8) codes >>= 16;
        const I32<L> places = Set::template places<TB>(codes, step % 8);
#pragma GCC unroll 8
        for (int t = 0; t < TB; ++t) {
          F32<L> lanes;
          std::memcpy(&lanes, from + t * L, sizeof(lanes));
          sum[(part * 4 + w * 2 + i) % PARTS][t] += value * Set::pick(lanes, places);
        }
      }
    }
  }
  rows.values += 4 * L;
  rows.codes += 2 * L * GROUPS;
}

// y[token : token + TB, row : row + 4]
template <typename Set, typename V, int TB>
RAC_INLINE void tile_2to4(const SparseLinear& job, const float* x_scale, int64_t row,
                          int64_t token, const float* x) {
  constexpr int L = Set::L, COLUMNS = Block2to4<L, V::BYTES>::COLUMNS;
  constexpr int PARTS = TB == 1 ? 4 : TB <= 4 ? 2 : 1;  // sums in flight hide latency
  const int64_t stride = job.columns / 2 * V::BYTES;
  FourRows rows{job.values + row * stride, job.codes + row / 4 * job.columns / 2, stride};
  F32<L> sum[PARTS][TB] = {};
  int64_t c = 0, ahead = FETCHED_2TO4;
  for (; c + COLUMNS <= job.columns; c += COLUMNS, x += COLUMNS * TB) {
    const int64_t left = (job.columns - c) / 2 * V::BYTES;
    if (left <= FETCHED_2TO4) ahead = FETCHED_2TO4 + 3 * stride;  // of the next four rows
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) __builtin_prefetch(rows.values + r * stride + ahead);
    add_block<Set, V, TB, PARTS, false>(rows, x, sum);
  }
  if constexpr (L == 16) {
    if (c < job.columns) add_block<Set, V, TB, PARTS, true>(rows, x, sum);
  }
  float totals[TB][4];  // an index that is not constant would put the sums into memory
#pragma GCC unroll 8
  for (int t = 0; t < TB; ++t) {
#pragma GCC unroll 4
    for (int p = 1; p < PARTS; ++p) sum[0][t] += sum[p][t];
    const f32x4 total = quarters<L>(sum[0][t]);
    std::memcpy(totals[t], &total, sizeof(total));
  }
  for (int t = 0; t < TB && token + t < job.tokens; ++t) {
    const float scale = job.rounds_x ? x_scale[token + t] : 1.0f;
    for (int r = 0; r < 4 && row + r < job.rows; ++r) {
      job.y[(token + t) * job.rows + row + r] = finished<V>(job, row + r, totals[t][r], scale);
    }
  }
}
