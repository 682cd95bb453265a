// Dense and bitmap weights by products of bf16 pairs; a bitmap's values are spread out to 32 columns by
// one instruction. RB rows share the x that is loaded.
#pragma once

#include <algorithm>

#include "dots_values.h"
#include "linear_bitmap.h"
#include "linear_dense.h"

// sum += 32 columns of RB rows times the x of TB tokens.
template <int RB, int TB>
RAC_INLINE void add_rows(const __m512i (&weight)[RB], const uint16_t* x, __m512 (&sum)[RB][TB]) {
#pragma GCC unroll 8
  for (int t = 0; t < TB; ++t) {
    const __m512i lanes = _mm512_loadu_si512(x + t * PAIRED);
#pragma GCC unroll 4
    for (int r = 0; r < RB; ++r) sum[r][t] = add_pairs(sum[r][t], weight[r], lanes);
  }
}

template <int PARTS, int RB, int TB>
RAC_INLINE void finish_dots(const SparseLinear& job, int64_t row, int64_t token,
                            const __m512 (&sum)[PARTS][RB][TB]) {
  F32<16> sums[PARTS][RB][TB];
  std::memcpy(sums, sum, sizeof(sums));
  finish_rows<Bf16, 16>(job, row, token, sums);
}

// y[token : token + TB, row : row + RB]
template <int RB, int TB>
RAC_INLINE void dots_dense(const SparseLinear& job, int64_t row, int64_t token, const uint16_t* x) {
  constexpr int PARTS = RB * TB <= 4 ? 2 : 1;  // sums in flight hide latency
  const uint16_t* rows[RB];
  dense_rows(job, row, rows);
  __m512 sum[PARTS][RB][TB] = {};
  __m512i weight[RB];
  int64_t c = 0, ahead = FETCHED_DENSE / 2;
  for (; c + PARTS * PAIRED <= job.columns; c += PARTS * PAIRED) {
    if (job.columns - c <= FETCHED_DENSE / 2) ahead = FETCHED_DENSE / 2 + (RB - 1) * job.columns;
#pragma GCC unroll 2
    for (int p = 0; p < PARTS; ++p) {
#pragma GCC unroll 4
      for (int r = 0; r < RB; ++r) {
        __builtin_prefetch(rows[r] + c + p * PAIRED + ahead);
        weight[r] = _mm512_loadu_si512(rows[r] + c + p * PAIRED);
      }
      add_rows<RB, TB>(weight, x, sum[p]);
      x += PAIRED * TB;
    }
  }
  for (; c < job.columns; c += PAIRED, x += PAIRED * TB) {
    const __mmask32 valid = job.columns - c < PAIRED ? (1u << (job.columns - c)) - 1 : ~0u;
#pragma GCC unroll 4
    for (int r = 0; r < RB; ++r) weight[r] = _mm512_maskz_loadu_epi16(valid, rows[r] + c);
    add_rows<RB, TB>(weight, x, sum[0]);
  }
  finish_dots(job, row, token, sum);
}

// The next values of a row at their places among 32 columns. A whole register is read where that many
// values may be; else no more than there are.
template <bool WHOLE>
RAC_INLINE __m512i spread_32(const uint8_t*& values, uint32_t bits) {
  const int count = __builtin_popcount(bits);
  const __m512i read =
      WHOLE ? _mm512_loadu_si512(values)
            : _mm512_maskz_loadu_epi16(static_cast<uint32_t>((1ull << count) - 1), values);
  values += 2 * count;
  return _mm512_maskz_expand_epi16(static_cast<__mmask32>(bits), read);
}

template <int RB, int TB, bool WHOLE>
RAC_INLINE void dots_bitmap_rows(const SparseLinear& job, int64_t row, int64_t token,
                                 const uint16_t* x) {
  constexpr int PARTS = RB * TB <= 4 ? 2 : 1;
  const int64_t bytes = (job.columns + 7) / 8;
  const uint8_t *values[RB], *codes[RB];
#pragma GCC unroll 4
  for (int r = 0; r < RB; ++r) {
    const int64_t at = std::min(row + r, job.rows - 1);
    values[r] = job.values + 2 * job.offsets[at];
    codes[r] = job.codes + at * bytes;
  }
  __m512 sum[PARTS][RB][TB] = {};
  __m512i weight[RB];
  // about what a row takes, for what is fetched of the next rows
  const int64_t length = 2 * (job.offsets[row + 1] - job.offsets[row]);
  int64_t byte = 0, ahead = FETCHED_BITMAP;
  for (; byte + 8 <= bytes; byte += 8) {
    __builtin_prefetch(codes[0] + RB * (bytes + byte), 0, 2);
    if (8 * (bytes - byte) <= FETCHED_BITMAP) ahead = FETCHED_BITMAP + (RB - 1) * length;
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 4
      for (int r = 0; r < RB; ++r) {
        if (half == 0) __builtin_prefetch(values[r] + ahead, 0, 2);
        uint32_t bits;
        std::memcpy(&bits, codes[r] + byte + 4 * half, sizeof(bits));
        weight[r] = spread_32<WHOLE>(values[r], bits);
      }
      add_rows<RB, TB>(weight, x, sum[half % PARTS]);
      x += PAIRED * TB;
    }
  }
  for (; byte < bytes; byte += 4, x += PAIRED * TB) {
#pragma GCC unroll 4
    for (int r = 0; r < RB; ++r) {
      uint32_t bits = 0;  // what follows the row's last byte is another row's
      std::memcpy(&bits, codes[r] + byte, std::min<int64_t>(4, bytes - byte));
      weight[r] = spread_32<WHOLE>(values[r], bits);
    }
    add_rows<RB, TB>(weight, x, sum[0]);
  }
  finish_dots(job, row, token, sum);
}

// y[token : token + TB, row : row + RB]; rows that there are not repeat the last.
template <int RB, int TB>
RAC_INLINE void dots_bitmap(const SparseLinear& job, int64_t row, int64_t token, const uint16_t* x) {
  const int64_t end = job.offsets[std::min(row + RB, job.rows)] + PAIRED;
  if (end <= job.offsets[job.rows] + READ_AFTER_VALUES / 2) {
    dots_bitmap_rows<RB, TB, true>(job, row, token, x);
  } else {
    dots_bitmap_rows<RB, TB, false>(job, row, token, x);
  }
}
