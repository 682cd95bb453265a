// Sixteen groups of a row, packed with AVX-512; see pack_blocks.h.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include "pack_avx2.h"

// Where the group of each of 32 kept values begins among 64 weights.
alignas(64) constexpr uint16_t GROUP_OF_KEPT[32] = {
    0,  0,  4,  4,  8,  8,  12, 12, 16, 16, 20, 20, 24, 24, 28, 28,
    32, 32, 36, 36, 40, 40, 44, 44, 48, 48, 52, 52, 56, 56, 60, 60};

struct Avx512Block {
  RAC_AVX512 static inline __m512i turned(__m512i scores, const uint8_t* turn) {
    const __m128i control = _mm_load_si128(reinterpret_cast<const __m128i*>(turn));
    return _mm512_shuffle_epi8(scores, _mm512_broadcast_i32x4(control));
  }

  RAC_AVX512 static inline uint32_t two_of(uint32_t a, uint32_t b, uint32_t c) {
    return (a & b) | (c & (a | b));
  }

  // A bit for each lane that is kept, by 16-bit scores.
  RAC_AVX512 static inline uint32_t highest_16(__m512i scores) {
    const __m512i one = _mm512_add_epi16(scores, _mm512_set1_epi64(LOWER_1));
    const __m512i two = _mm512_add_epi16(scores, _mm512_set1_epi64(LOWER_2));
    const __m512i three = _mm512_add_epi16(scores, _mm512_set1_epi64(LOWER_3));
    return two_of(_mm512_cmpgt_epi16_mask(one, turned(scores, TURN_1)),
                  _mm512_cmpgt_epi16_mask(two, turned(scores, TURN_2)),
                  _mm512_cmpgt_epi16_mask(three, turned(scores, TURN_3)));
  }

  RAC_AVX512 static inline __m512i plus(__m512i scores, int a, int b, int c, int d) {
    return _mm512_add_epi32(scores, _mm512_broadcast_i32x4(_mm_setr_epi32(a, b, c, d)));
  }

  RAC_AVX512 static inline uint32_t highest_32(__m512i s) {
    const auto turn_1 = static_cast<_MM_PERM_ENUM>(0x39);
    const auto turn_2 = static_cast<_MM_PERM_ENUM>(0x4e);
    const auto turn_3 = static_cast<_MM_PERM_ENUM>(0x93);
    return two_of(
        _mm512_cmpgt_epi32_mask(plus(s, 0, 0, 0, 1), _mm512_shuffle_epi32(s, turn_1)),
        _mm512_cmpgt_epi32_mask(plus(s, 0, 0, 1, 1), _mm512_shuffle_epi32(s, turn_2)),
        _mm512_cmpgt_epi32_mask(plus(s, 0, 1, 1, 1), _mm512_shuffle_epi32(s, turn_3)));
  }

  template <Value V>
  RAC_AVX512 static inline __m512i scaled(__m256i magnitudes, const float* scale) {
    const __m512i wide = _mm512_cvtepu16_epi32(magnitudes);
    __m512i bits;
    if constexpr (V == Value::BFLOAT16) {
      bits = _mm512_slli_epi32(wide, 16);
    } else {
      const __m512 value = _mm512_castsi512_ps(_mm512_slli_epi32(wide, 13));
      bits = _mm512_castps_si512(_mm512_mul_ps(value, _mm512_set1_ps(0x1p112f)));
      const __mmask16 special = _mm512_cmpgt_epi32_mask(wide, _mm512_set1_epi32(0x7bff));
      bits = _mm512_mask_or_epi32(bits, special, bits, _mm512_set1_epi32(FLOAT_INFINITY));
    }
    const __m512 score = _mm512_mul_ps(_mm512_castsi512_ps(bits), _mm512_loadu_ps(scale));
    return _mm512_and_si512(_mm512_castps_si512(score), _mm512_set1_epi32(0x7fffffff));
  }

  // A bit for each of 32 weights that is kept; in `nan` one where a score is NaN.
  template <Value V, Score S>
  RAC_AVX512 static inline uint32_t highest(__m512i bits, const float* scale, uint32_t* nan) {
    const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi16(0x7fff));
    if constexpr (S == Score::MAGNITUDE) {
      *nan = _mm512_cmpgt_epi16_mask(magnitude, _mm512_set1_epi16(infinity_of(V)));
      return highest_16(magnitude);
    }
    const __m512i low = scaled<V>(_mm512_castsi512_si256(magnitude), scale);
    const __m512i high = scaled<V>(_mm512_extracti64x4_epi64(magnitude, 1), scale + 16);
    const __m512i infinity = _mm512_set1_epi32(FLOAT_INFINITY);
    *nan = _mm512_cmpgt_epi32_mask(low, infinity) |
           static_cast<uint32_t>(_mm512_cmpgt_epi32_mask(high, infinity)) << 16;
    return highest_32(low) | highest_32(high) << 16;
  }

  template <Value V, Score S>
  RAC_AVX512 static inline uint64_t pack(const uint8_t* from, const float* scale, uint8_t* to,
                                         uint64_t* positions) {
    if constexpr (bytes_of(V) == 1) {
      const __m512i bits = _mm512_loadu_si512(from);
      const __m512i counts = _mm512_set1_epi8(V == Value::INT8 ? -1 : 0x7f);
      const uint64_t mask = _mm512_test_epi8_mask(bits, counts);
      *positions = positions_of(mask);
      store_8(_mm512_maskz_mov_epi8(mask, bits), *positions, to);
      return more_than_two(mask);
    }
    __m512i bits[2];
    uint64_t mask = 0, refused = 0;
    for (int i = 0; i < 2; ++i) {
      bits[i] = _mm512_loadu_si512(from + 64 * i);
      uint32_t nonzero = _mm512_test_epi16_mask(bits[i], _mm512_set1_epi16(0x7fff));
      if constexpr (S != Score::NONE) {
        uint32_t nan;
        nonzero &= highest<V, S>(bits[i], scale + 32 * i, &nan);
        refused |= static_cast<uint64_t>(nan) << 32 * i;
      }
      bits[i] = _mm512_maskz_mov_epi16(nonzero, bits[i]);
      mask |= static_cast<uint64_t>(nonzero) << 32 * i;
    }
    *positions = positions_of(mask);
    const __m512i shifts = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 2, 4, 6, 8, 10, 12, 14));
    const __m512i kept = _mm512_and_si512(_mm512_srlv_epi16(spread(*positions), shifts),
                                          _mm512_set1_epi16(3));
    const __m512i index = _mm512_or_si512(kept, _mm512_load_si512(GROUP_OF_KEPT));
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(bits[0], index, bits[1]));
    return S == Score::NONE ? more_than_two(mask) : refused;
  }

  // The four 16-bit words of positions, each in all words of its 128-bit lane.
  RAC_AVX512 static inline __m512i spread(uint64_t positions) {
    const __m512i words = _mm512_set_epi64(0x0706070607060706, 0x0706070607060706,
                                           0x0504050405040504, 0x0504050405040504,
                                           0x0302030203020302, 0x0302030203020302,
                                           0x0100010001000100, 0x0100010001000100);
    return _mm512_shuffle_epi8(_mm512_set1_epi64(static_cast<int64_t>(positions)), words);
  }

  // Groups of bytes stay inside a 128-bit lane: four groups give its lower eight bytes.
  RAC_AVX512 static inline void store_8(__m512i bits, uint64_t positions, uint8_t* to) {
    const __m512i shifts = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 4, 8, 12, 0, 4, 8, 12));
    const __m512i pair = _mm512_srlv_epi16(spread(positions), shifts);
    const __m512i first = _mm512_and_si512(pair, _mm512_set1_epi16(3));
    const __m512i second = _mm512_and_si512(_mm512_slli_epi16(pair, 6), _mm512_set1_epi16(0x300));
    const __m512i group = _mm512_set1_epi64(0x0c0c080804040000);
    const __m512i control = _mm512_or_si512(group, _mm512_or_si512(first, second));
    const __m512i lower = _mm512_set_epi64(0, 0, 0, 0, 6, 4, 2, 0);
    const __m512i kept = _mm512_permutexvar_epi64(lower, _mm512_shuffle_epi8(bits, control));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(kept));
  }
};

#endif
