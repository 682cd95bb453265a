// Sixteen groups of a row, packed with AVX2; see pack_blocks.h.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include "pack_blocks.h"

// Lane i of `a` holds the score of its neighbour `by` places on, around the group.
alignas(16) constexpr uint8_t TURN_1[16] = {2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9};
alignas(16) constexpr uint8_t TURN_2[16] = {4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11};
alignas(16) constexpr uint8_t TURN_3[16] = {6, 7, 0, 1, 2, 3, 4, 5, 14, 15, 8, 9, 10, 11, 12, 13};
// 1 where that neighbour has the lower index.
constexpr int64_t LOWER_1 = 0x0001000000000000, LOWER_2 = 0x0001000100000000;
constexpr int64_t LOWER_3 = 0x0001000100010000;

struct Avx2Block {
  static constexpr Controls<8> CONTROLS_16 = pack_controls<2>();
  static constexpr Controls<4> CONTROLS_8 = pack_controls<1>();

  RAC_AVX2 static inline __m256i two_of(__m256i a, __m256i b, __m256i c) {
    return _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)));
  }

  RAC_AVX2 static inline __m256i turned(__m256i scores, const uint8_t* turn) {
    const __m128i control = _mm_load_si128(reinterpret_cast<const __m128i*>(turn));
    return _mm256_shuffle_epi8(scores, _mm256_broadcastsi128_si256(control));
  }

  // All ones in the lanes that are kept, by 16-bit scores.
  RAC_AVX2 static inline __m256i highest_16(__m256i scores) {
    const __m256i one = _mm256_add_epi16(scores, _mm256_set1_epi64x(LOWER_1));
    const __m256i two = _mm256_add_epi16(scores, _mm256_set1_epi64x(LOWER_2));
    const __m256i three = _mm256_add_epi16(scores, _mm256_set1_epi64x(LOWER_3));
    return two_of(_mm256_cmpgt_epi16(one, turned(scores, TURN_1)),
                  _mm256_cmpgt_epi16(two, turned(scores, TURN_2)),
                  _mm256_cmpgt_epi16(three, turned(scores, TURN_3)));
  }

  RAC_AVX2 static inline __m256i highest_32(__m256i scores) {
    const __m256i one = _mm256_add_epi32(scores, _mm256_setr_epi32(0, 0, 0, 1, 0, 0, 0, 1));
    const __m256i two = _mm256_add_epi32(scores, _mm256_setr_epi32(0, 0, 1, 1, 0, 0, 1, 1));
    const __m256i three = _mm256_add_epi32(scores, _mm256_setr_epi32(0, 1, 1, 1, 0, 1, 1, 1));
    return two_of(_mm256_cmpgt_epi32(one, _mm256_shuffle_epi32(scores, 0x39)),
                  _mm256_cmpgt_epi32(two, _mm256_shuffle_epi32(scores, 0x4e)),
                  _mm256_cmpgt_epi32(three, _mm256_shuffle_epi32(scores, 0x93)));
  }

  template <Value V>
  RAC_AVX2 static inline __m256i scaled(__m128i magnitudes, const float* scale) {
    const __m256i wide = _mm256_cvtepu16_epi32(magnitudes);
    __m256 value;
    if constexpr (V == Value::BFLOAT16) {
      value = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    } else {
      const __m256i special = _mm256_and_si256(_mm256_cmpgt_epi32(wide, _mm256_set1_epi32(0x7bff)),
                                               _mm256_set1_epi32(FLOAT_INFINITY));
      value = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 13));
      value = _mm256_mul_ps(value, _mm256_set1_ps(0x1p112f));
      value = _mm256_or_ps(value, _mm256_castsi256_ps(special));
    }
    const __m256i score = _mm256_castps_si256(_mm256_mul_ps(value, _mm256_loadu_ps(scale)));
    return _mm256_and_si256(score, _mm256_set1_epi32(0x7fffffff));
  }

  // Halves of two vectors of 32-bit masks as one of 16-bit masks.
  RAC_AVX2 static inline __m256i narrowed(__m256i low, __m256i high) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
  }

  // All ones where sixteen weights are kept; adds to `nan` where a score is NaN.
  template <Value V, Score S>
  RAC_AVX2 static inline __m256i highest(__m256i bits, const float* scale, __m256i* nan) {
    const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi16(0x7fff));
    if constexpr (S == Score::MAGNITUDE) {
      *nan = _mm256_cmpgt_epi16(magnitude, _mm256_set1_epi16(infinity_of(V)));
      return highest_16(magnitude);
    }
    const __m256i low = scaled<V>(_mm256_castsi256_si128(magnitude), scale);
    const __m256i high = scaled<V>(_mm256_extracti128_si256(magnitude, 1), scale + 8);
    const __m256i infinity = _mm256_set1_epi32(FLOAT_INFINITY);
    *nan = narrowed(_mm256_cmpgt_epi32(low, infinity), _mm256_cmpgt_epi32(high, infinity));
    return narrowed(highest_32(low), highest_32(high));
  }

  // A bit for each lane of two vectors of 16-bit masks.
  RAC_AVX2 static inline uint32_t bits_of(__m256i low, __m256i high) {
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8);
    return static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
  }

  template <Value V, Score S>
  RAC_AVX2 static inline uint64_t pack(const uint8_t* from, const float* scale, uint8_t* to,
                                       uint64_t* positions) {
    constexpr int VECTORS = 2 * bytes_of(V);
    __m256i bits[VECTORS], zero[VECTORS], nan[VECTORS];
    for (int i = 0; i < VECTORS; ++i) {
      bits[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from) + i);
      if constexpr (S != Score::NONE) {
        const __m256i keep = highest<V, S>(bits[i], scale + 16 * i, &nan[i]);
        bits[i] = _mm256_and_si256(bits[i], keep);
      }
      if constexpr (bytes_of(V) == 2) {
        zero[i] = _mm256_cmpeq_epi16(_mm256_slli_epi16(bits[i], 1), _mm256_setzero_si256());
      } else {
        const __m256i counts = _mm256_set1_epi8(V == Value::INT8 ? -1 : 0x7f);
        zero[i] = _mm256_cmpeq_epi8(_mm256_and_si256(bits[i], counts), _mm256_setzero_si256());
      }
      bits[i] = _mm256_andnot_si256(zero[i], bits[i]);
    }
    uint64_t mask, refused = 0;
    if constexpr (bytes_of(V) == 2) {
      mask = bits_of(zero[0], zero[1]) | static_cast<uint64_t>(bits_of(zero[2], zero[3])) << 32;
      if constexpr (S != Score::NONE) {
        refused = bits_of(nan[0], nan[1]) | static_cast<uint64_t>(bits_of(nan[2], nan[3])) << 32;
      }
    } else {
      mask = static_cast<uint32_t>(_mm256_movemask_epi8(zero[0])) |
             static_cast<uint64_t>(_mm256_movemask_epi8(zero[1])) << 32;
    }
    mask = ~mask;
    *positions = positions_of(mask);
    for (int i = 0; i < VECTORS; ++i) {
      store<bytes_of(V)>(_mm256_castsi256_si128(bits[i]), *positions, 2 * i, to);
      store<bytes_of(V)>(_mm256_extracti128_si256(bits[i], 1), *positions, 2 * i + 1, to);
    }
    return S == Score::NONE ? more_than_two(mask) : refused;
  }

  // The kept ones of 16 bytes of weights, the n-th of the block.
  template <int SIZE>
  RAC_AVX2 static inline void store(__m128i bits, uint64_t positions, int n, uint8_t* to) {
    __m128i control;
    if constexpr (SIZE == 2) {
      const uint8_t* row = CONTROLS_16[positions >> 8 * n & 255].data();
      control = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row));
    } else {
      uint32_t low, high;
      std::memcpy(&low, CONTROLS_8[positions >> 16 * n & 255].data(), 4);
      std::memcpy(&high, CONTROLS_8[positions >> (16 * n + 8) & 255].data(), 4);
      control = _mm_cvtsi64_si128(low | static_cast<uint64_t>(high + 0x08080808u) << 32);
    }
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 8 * n), _mm_shuffle_epi8(bits, control));
  }
};

#endif
