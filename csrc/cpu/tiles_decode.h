// 16 rows of a packed weight as dense tiles of bf16 for linear_tiles.cpp: [columns / 32][16][32], zeros
// where there are no rows or columns. After each four rows a decoder calls between(0) to between(3).
//
// A value's place among 32 columns is a bit; one instruction spreads values out by such a mask. Codes
// of 2:4 become masks four rows and 128 columns at a time, nibble by nibble.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "elements.h"
#include "linear_sparse.h"
#include "linear_values.h"
#include "tiles_arrange.h"

constexpr int64_t TILES = 4;   // of columns that are decoded while as many others are multiplied
constexpr int64_t DECODED = TILES * DEPTH;
constexpr int64_t FETCHED_COLUMNS = 256;  // of a row, before they are needed

// Where row r of the tile of a column lies.
RAC_INLINE uint16_t* tile_row(uint16_t* tiles, int64_t row, int64_t column) {
  return tiles + (column / DEPTH * SIDE + row) * DEPTH;
}

RAC_INLINE __mmask32 first_of_32(int64_t count) {
  return count < DEPTH ? (1u << count) - 1 : ~0u;
}

// Of a bitmap's rows, where the values of the next column begin.
using NextValues = const uint8_t* [SIDE];

struct DenseTiles {
  template <typename Between>
  RAC_INLINE void decode(const SparseLinear& job, int64_t row, int64_t rows, int64_t begin,
                         int64_t end, NextValues&, uint16_t* tiles, Between between) {
    const auto* values = reinterpret_cast<const uint16_t*>(job.values);
    for (int64_t r = 0; r < rows; ++r) {
      const uint16_t* from = values + (row + r) * job.columns;
      for (int64_t c = begin; c < end; c += DEPTH) {
        __builtin_prefetch(from + c + FETCHED_COLUMNS);
        const __m512i read = _mm512_maskz_loadu_epi16(first_of_32(end - c), from + c);
        _mm512_store_si512(tile_row(tiles, r, c - begin), read);
      }
      if (r % 4 == 3) between(r / 4);
    }
    for (int64_t r = rows / 4; r < SIDE / 4; ++r) between(r);
  }
};

struct BitmapTiles {
  template <typename Between>
  RAC_INLINE void decode(const SparseLinear& job, int64_t row, int64_t rows, int64_t begin,
                         int64_t end, NextValues& next, uint16_t* tiles, Between between) {
    const int64_t last = job.offsets[row + rows] + DEPTH;
    if (last <= job.offsets[job.rows] + READ_AFTER_VALUES / 2) {
      spread<true>(job, row, rows, begin, end, next, tiles, between);
    } else {
      spread<false>(job, row, rows, begin, end, next, tiles, between);
    }
  }

  // WHOLE: a whole register may be read after the last row's last value.
  template <bool WHOLE, typename Between>
  RAC_INLINE void spread(const SparseLinear& job, int64_t row, int64_t rows, int64_t begin,
                         int64_t end, NextValues& next, uint16_t* tiles, Between between) {
    const int64_t bytes = (job.columns + 7) / 8;
    for (int64_t r = 0; r < rows; ++r) {
      const uint8_t* codes = job.codes + (row + r) * bytes;
      const uint8_t* from = next[r];
      for (int64_t c = begin; c < end; c += DEPTH) {
        uint32_t bits = 0;  // what follows the row's last byte is another row's
        if (end - c >= DEPTH) std::memcpy(&bits, codes + c / 8, 4);
        else std::memcpy(&bits, codes + c / 8, (end - c + 7) / 8);
        const int count = __builtin_popcount(bits);
        __builtin_prefetch(from + FETCHED_COLUMNS);
        const auto valid = static_cast<__mmask32>((1ull << count) - 1);
        const __m512i packed =
            WHOLE ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16(valid, from);
        _mm512_store_si512(tile_row(tiles, r, c - begin), _mm512_maskz_expand_epi16(bits, packed));
        from += 2 * count;
      }
      next[r] = from;
      if (r % 4 == 3) between(r / 4);
    }
    for (int64_t r = rows / 4; r < SIDE / 4; ++r) between(r);
  }
};

// For four bits of a code, a bit for each of its two columns.
RAC_INLINE __m512i masks_of_codes(__m512i codes) {
  const __m512i table = _mm512_broadcast_i32x4(
      _mm_setr_epi8(1, 3, 5, 9, 3, 2, 6, 10, 5, 6, 4, 12, 9, 10, 12, 8));
  const __m512i nibble = _mm512_set1_epi8(0xf);
  const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(codes, nibble));
  const __m512i high = _mm512_shuffle_epi8(
      table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble));
  return _mm512_or_si512(low, _mm512_slli_epi16(high, 4));
}

// 2:4 values in bf16 or, BYTES being 1, in e4m3, which become bf16 divided by E4M3_DIVISOR.
constexpr float E4M3_DIVISOR = 0x1p56f;

// Subnormal e4m3 and 0, where `small`; `words` have e4m3 in their upper bytes.
RAC_INLINE __m512i with_small_e4m3(__m512i words, __m512i normal, __mmask32 small) {
  // 0 to 7 times 2^-9
  const __m128i values = _mm_setr_epi16(0, 0x1f00, 0x1f80, 0x1fc0, 0x2000, 0x2020, 0x2040, 0x2060);
  const __m512i fraction = _mm512_srli_epi16(_mm512_slli_epi16(words, 5), 13);
  const __m512i sign = _mm512_and_si512(words, _mm512_set1_epi16(static_cast<int16_t>(0x8000)));
  return _mm512_or_si512(sign, _mm512_mask_permutexvar_epi16(normal, small, fraction,
                                                             _mm512_broadcast_i32x4(values)));
}

// 32 e4m3 as bf16. Exponents count from 64, so that nothing that is multiplied is subnormal.
RAC_INLINE __m512i bf16_of_e4m3(__m256i bytes) {
  const __m512i words = _mm512_slli_epi16(_mm512_cvtepu8_epi16(bytes), 8);
  // exponent and fraction four bits lower, 64 to the exponent: (a & b) | c
  const __m512i kept = _mm512_set1_epi16(static_cast<int16_t>(0x87f0));
  const __m512i normal = _mm512_ternarylogic_epi32(_mm512_srai_epi16(words, 4), kept,
                                                   _mm512_set1_epi16(64 << 7), 0xea);
  const __mmask32 small = _mm512_testn_epi16_mask(words, _mm512_set1_epi16(0x7800));
  return __builtin_expect(small != 0, 0) ? with_small_e4m3(words, normal, small) : normal;
}

// Two pieces of 32 columns, their values being 64 BYTES / 2 bytes, to `to` and STEP elements after.
template <int BYTES, int64_t STEP>
RAC_INLINE void spread_two(const uint8_t* values, const uint32_t* masks, bool both, uint16_t* to) {
  __m256i first, second = _mm256_setzero_si256();
  if constexpr (BYTES == 2) {
    first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
    if (both) second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + 32));
  } else {
    const __m512i wide = bf16_of_e4m3(_mm256_maskz_loadu_epi8(both ? ~0u : 0xffffu, values));
    first = _mm512_castsi512_si256(wide);
    second = _mm512_extracti64x4_epi64(wide, 1);
  }
  _mm512_storeu_si512(to, _mm512_maskz_expand_epi16(masks[0], _mm512_castsi256_si512(first)));
  if (both) {
    const __m512i later = _mm512_castsi256_si512(second);
    _mm512_storeu_si512(to + STEP, _mm512_maskz_expand_epi16(masks[4], later));
  }
}

// `count` <= 4 pieces of 32 columns of rows row .. row + 4, from column `begin` on: of row r to
// `to` + r * row_step, a piece STEP elements after the one before.
template <int BYTES, int64_t STEP>
RAC_INLINE void spread_rows(const SparseLinear& job, int64_t row, int64_t begin, int64_t count,
                            uint16_t* to, int64_t row_step) {
  constexpr int64_t AHEAD = FETCHED_COLUMNS / 2 * BYTES;
  const int64_t stride = job.columns / 2 * BYTES;
  const uint8_t* codes = job.codes + (row / 4 * job.columns + begin) / 2;
  const uint8_t* values = job.values + row * stride + begin / 2 * BYTES;
  const auto valid = static_cast<__mmask16>((1u << 4 * count) - 1);
  alignas(64) uint32_t masks[TILES * 4];  // [piece][row]
  __builtin_prefetch(codes + FETCHED_COLUMNS / 2);
  _mm512_store_si512(masks, masks_of_codes(_mm512_maskz_loadu_epi32(valid, codes)));
#pragma GCC unroll 4
  for (int64_t r = 0; r < 4; ++r) {
    const uint8_t* from = values + r * stride;
    __builtin_prefetch(from + AHEAD);
    if constexpr (BYTES == 2) __builtin_prefetch(from + AHEAD + 64);
    uint16_t* const first = to + r * row_step;
    spread_two<BYTES, STEP>(from, masks + r, count > 1, first);
    if (count > 2) {
      spread_two<BYTES, STEP>(from + DEPTH * BYTES, masks + 8 + r, count > 3, first + 2 * STEP);
    }
  }
}

template <int BYTES>
struct Tiles2to4 {
  template <typename Between>
  RAC_INLINE void decode(const SparseLinear& job, int64_t row, int64_t rows, int64_t begin,
                         int64_t end, NextValues&, uint16_t* tiles, Between between) {
    const int64_t count = (end - begin) / DEPTH;
    for (int64_t four = 0; four < rows; four += 4) {
      spread_rows<BYTES, SIDE * DEPTH>(job, row + four, begin, count, tile_row(tiles, four, 0),
                                       DEPTH);
      between(four / 4);
    }
    for (int64_t four = (rows + 3) / 4; four < SIDE / 4; ++four) between(four);
  }
};
