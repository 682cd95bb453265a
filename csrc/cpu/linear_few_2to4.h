// linear_few for 2:4 weights: x is picked to the packed values instead of the values being spread
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
// this needs them (codes_2to4), and move down two bits a step. A sum's quarters are the same rows.
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
template <typename V, int L>
RAC_INLINE F32<L> value_of(I32<L> words, int i) {
  constexpr int BITS = 8 * V::BYTES;
  const int shift = 32 - BITS - i * BITS;
  I32<L> upper = shift ? words << shift : words;
  if (i > 0) upper &= static_cast<int32_t>(~0u << (32 - BITS));
  return V::template widen<L>(upper);
}

// Four rows of W in turn; `codes` are those of this block.
template <typename Set, typename V>
struct FourRows {
  static constexpr int L = Set::L;
  const uint8_t* values;
  const uint8_t* codes;
  int64_t stride;  // bytes of a row

  RAC_INLINE FourRows at(const SparseLinear& job, int64_t row) {
    const int64_t stride = job.columns / 2 * V::BYTES;
    return {job.values + row * stride, job.codes + row / 4 * job.columns / 2, stride};
  }
  // Words of four rows; in the HALF of a block that may end a row of L = 16, the others are 0.
  template <bool HALF, int PART>
  RAC_INLINE void read(const FourRows& rows, I32<L> (&words)[2]) {
    I32<L> read[4] = {};
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      std::memcpy(&read[r], rows.values + r * rows.stride, HALF ? 2 * L : 4 * L);
    }
    transposed<L, PART>(read, words);
  }
};

// sum += the next block of RT times four rows times the x of TB tokens.
template <typename Set, typename V, int RT, int TB, int PARTS, bool HALF>
RAC_INLINE void add_block(FourRows<Set, V> (&rows)[RT], const float* x,
                          F32<Set::L> (&sum)[PARTS][RT][TB]) {
  constexpr int L = Set::L, GROUPS = 2 / V::BYTES, VALUES = 4 / V::BYTES;
  I32<L> codes[RT];
#pragma GCC unroll 2
  for (int t = 0; t < RT; ++t) codes[t] = Set::template codes<GROUPS, HALF>(rows[t].codes);
#pragma GCC unroll 2
  for (int part = 0; part < 2; ++part) {
    I32<L> words[RT][2];
#pragma GCC unroll 2
    for (int t = 0; t < RT; ++t) {
      if (part == 0) FourRows<Set, V>::template read<HALF, 0>(rows[t], words[t]);
      else FourRows<Set, V>::template read<HALF, 1>(rows[t], words[t]);
    }
#pragma GCC unroll 2
    for (int w = 0; w < 2; ++w) {
#pragma GCC unroll 4
      for (int i = 0; i < VALUES; ++i) {
        const float* from = x + ((part * 2 + w) * GROUPS + i / 2) * TB * L;
        F32<L> value[RT];
#pragma GCC unroll 2
        for (int t = 0; t < RT; ++t) value[t] = value_of<V, L>(words[t][w], i);
#pragma GCC unroll 8
        for (int token = 0; token < TB; ++token) {
          F32<L> lanes;
          std::memcpy(&lanes, from + token * L, sizeof(lanes));
#pragma GCC unroll 2
          for (int t = 0; t < RT; ++t) {
            sum[(part * 4 + w * 2 + i) % PARTS][t][token] += value[t] * Set::pick(lanes, codes[t]);
          }
        }
#pragma GCC unroll 2
        for (int t = 0; t < RT; ++t) codes[t] >>= 2;
      }
    }
  }
#pragma GCC unroll 2
  for (int t = 0; t < RT; ++t) {
    rows[t].values += 4 * L;
    rows[t].codes += 2 * L * GROUPS;
  }
}

// y[token : token + TB, row : row + 4 RT]
template <typename Set, typename V, int RT, int TB>
RAC_INLINE void few_tile_2to4(const SparseLinear& job, int64_t row, int64_t token, const float* x) {
  constexpr int L = Set::L, COLUMNS = Block2to4<L, V::BYTES>::COLUMNS;
  constexpr int PARTS = RT * TB == 1 ? 4 : RT * TB <= 4 ? 2 : 1;  // sums in flight hide latency
  FourRows<Set, V> rows[RT];
#pragma GCC unroll 2
  for (int t = 0; t < RT; ++t) rows[t] = FourRows<Set, V>::at(job, row + 4 * t);
  F32<L> sum[PARTS][RT][TB] = {};
  int64_t c = 0;
  int64_t ahead = FETCHED_2TO4;
  for (; c + COLUMNS <= job.columns; c += COLUMNS, x += COLUMNS * TB) {
    const int64_t left = (job.columns - c) / 2 * V::BYTES;
    if (left <= FETCHED_2TO4) ahead = FETCHED_2TO4 + (4 * RT - 1) * rows[0].stride;
#pragma GCC unroll 2
    for (int t = 0; t < RT; ++t) {
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        __builtin_prefetch(rows[t].values + r * rows[t].stride + ahead);
      }
    }
    add_block<Set, V, RT, TB, PARTS, false>(rows, x, sum);
  }
  if constexpr (L == 16) {
    if (c < job.columns) add_block<Set, V, RT, TB, PARTS, true>(rows, x, sum);
  }
  float totals[RT][TB][4];  // an index that is not constant would put the sums into memory
#pragma GCC unroll 2
  for (int t = 0; t < RT; ++t) {
#pragma GCC unroll 8
    for (int n = 0; n < TB; ++n) {
#pragma GCC unroll 4
      for (int p = 1; p < PARTS; ++p) sum[0][t][n] += sum[p][t][n];
      const f32x4 total = quarters<L>(sum[0][t][n]);
      std::memcpy(totals[t][n], &total, sizeof(total));
    }
  }
  for (int n = 0; n < TB && token + n < job.tokens; ++n) {
    for (int r = 0; r < 4 * RT && row + r < job.rows; ++r) {
      job.y[(token + n) * job.rows + row + r] = finished<V>(job, row + r, totals[r / 4][n][r % 4]);
    }
  }
}
