// 2:4 weights in bf16 by products of pairs: a group's two values meet the two x that its code picks.
//
//   rows 0, 1      :  a0 a1 a2 a3 | a4 ..    b0 b1 b2 b3 | b4 ..     a pair of values a group
//   interleaved    :  a0 a1 b0 b1 | a4 ..    a2 a3 b2 b3 | a6 ..     by 64 bits
//   x              :  the eight columns of groups 0 and 1 | of 4 and 5 ..
//
// so that a byte shuffle within quarters finds all x of two rows' values. Four bits of code become its
// four control bytes by a table of 16 words.
#pragma once

#include <algorithm>

#include "dots_values.h"
#include "linear_2to4.h"

// For a code, the bytes of its two columns among four bf16.
struct Controls {
  alignas(64) uint32_t bytes[16];
};

constexpr Controls make_controls() {
  Controls table{};
  for (uint32_t code = 0; code < 16; ++code) {
    const uint32_t first = 2 * (code & 3), second = 2 * (code >> 2);
    table.bytes[code] = first | (first + 1) << 8 | second << 16 | (second + 1) << 24;
  }
  return table;
}

constexpr Controls CONTROLS_2TO4 = make_controls();

// The codes of rows 2 PAIR and 2 PAIR + 1, those of the first register of x lowest, the others 8 bits
// higher. `codes`: 16 bytes for each 32 columns, a word a row.
template <int PAIR>
RAC_INLINE __m512i codes_of_two(__m512i codes) {
  constexpr int R = 2 * PAIR;
  const __m512i rows = _mm512_setr_epi32(R, R, R + 1, R + 1, R, R, R + 1, R + 1, R + 4, R + 4, R + 5,
                                         R + 5, R + 4, R + 4, R + 5, R + 5);
  const __m512i later = _mm512_setr_epi32(0, 4, 0, 4, 16, 20, 16, 20, 0, 4, 0, 4, 16, 20, 16, 20);
  return _mm512_srlv_epi32(_mm512_permutexvar_epi32(rows, codes), later);
}

// sum[.][PAIR] += 64 columns of two of four rows times the x of TB tokens; HALF: 32 columns.
template <int TB, int PARTS, bool HALF, int PAIR>
RAC_INLINE void add_two(const FourRows& rows, const uint16_t* x, __m512 (&sum)[PARTS][2][TB]) {
  constexpr __mmask16 VALUES = HALF ? 0xff : 0xffff, CODES = HALF ? 0xf : 0xff;
  const uint8_t* row = rows.values + 2 * PAIR * rows.stride;
  const __m512i a = _mm512_maskz_loadu_epi32(VALUES, row);
  const __m512i b = _mm512_maskz_loadu_epi32(VALUES, row + rows.stride);
  const __m512i codes = codes_of_two<PAIR>(_mm512_maskz_loadu_epi32(CODES, rows.codes));
  const __m512i table = _mm512_load_si512(CONTROLS_2TO4.bytes);
  const __m512i odd = _mm512_set1_epi64(0x0808080800000000);  // the second group of two
#pragma GCC unroll 2
  for (int part = 0; part < 2; ++part) {
    const __m512i values = part ? _mm512_unpackhi_epi64(a, b) : _mm512_unpacklo_epi64(a, b);
    const __m512i code = part ? _mm512_srli_epi32(codes, 8) : codes;
    const __m512i controls = _mm512_or_si512(_mm512_permutexvar_epi32(code, table), odd);
#pragma GCC unroll 8
    for (int t = 0; t < TB; ++t) {
      const __m512i lanes = _mm512_loadu_si512(x + (part * TB + t) * PAIRED);
      __m512& to = sum[part % PARTS][PAIR][t];
      to = add_pairs(to, values, _mm512_shuffle_epi8(lanes, controls));
    }
  }
}

template <int TB, int PARTS, bool HALF>
RAC_INLINE void add_four(const FourRows& rows, const uint16_t* x, __m512 (&sum)[PARTS][2][TB]) {
  add_two<TB, PARTS, HALF, 0>(rows, x, sum);
  add_two<TB, PARTS, HALF, 1>(rows, x, sum);
}

// y[token : token + TB, row : row + 4]
template <int TB>
RAC_INLINE void dots_2to4(const SparseLinear& job, int64_t row, int64_t token, const uint16_t* x) {
  constexpr int COLUMNS = InQuarters::COLUMNS;
  constexpr int PARTS = TB <= 2 ? 2 : 1;  // sums in flight hide latency
  const int64_t stride = job.columns;     // two bytes for every second column
  FourRows rows{job.values + row * stride, job.codes + row / 4 * job.columns / 2, stride};
  __m512 sum[PARTS][2][TB] = {};
  int64_t c = 0, ahead = FETCHED_2TO4;
  for (; c + COLUMNS <= job.columns; c += COLUMNS, x += COLUMNS * TB) {
    if (job.columns - c <= FETCHED_2TO4) ahead = FETCHED_2TO4 + 3 * stride;  // of the next four rows
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) __builtin_prefetch(rows.values + r * stride + ahead);
    __builtin_prefetch(rows.codes + FETCHED_2TO4);
    add_four<TB, PARTS, false>(rows, x, sum);
    rows.values += COLUMNS;
    rows.codes += COLUMNS / 2;
  }
  if (c < job.columns) add_four<TB, PARTS, true>(rows, x, sum);
#pragma GCC unroll 8
  for (int t = 0; t < TB; ++t) {
    float totals[4];
#pragma GCC unroll 2
    for (int pair = 0; pair < 2; ++pair) {
      __m512 all = sum[0][pair][t];
      if constexpr (PARTS == 2) all += sum[1][pair][t];
      const f32x4 four = quarters<16>(reinterpret_cast<F32<16>>(all));
      totals[2 * pair] = four[0] + four[1];
      totals[2 * pair + 1] = four[2] + four[3];
    }
    if (token + t >= job.tokens) return;
    for (int r = 0; r < 4 && row + r < job.rows; ++r) {
      job.y[(token + t) * job.rows + row + r] = finished<Bf16>(job, row + r, totals[r]);
    }
  }
}
