// The intrinsics of AVX-512 that csrc/cpu calls, as Intel's Intrinsics Guide defines them, for any CPU.
// What Intel leaves undefined is filled with noise. One that is missing here does not compile.
#pragma once

#include_next <immintrin.h>

#include <algorithm>
#include <cmath>

#include "../emulated_amx/immintrin.h"
#include "registers.h"

namespace emulated {

EMULATED __m512i load(const void* from, uintptr_t boundary) {
  if (reinterpret_cast<uintptr_t>(from) % boundary != 0) __builtin_trap();
  __m512i read;
  std::memcpy(&read, from, sizeof(read));
  return read;
}
EMULATED __m512i loadu_si512(const void* from) { return load(from, 1); }
EMULATED __m512i load_si512(const void* from) { return load(from, 64); }
EMULATED __m512 loadu_ps(const void* from) { return as<__m512>(load(from, 1)); }
EMULATED void storeu_si512(void* to, const __m512i& a) { std::memcpy(to, &a, sizeof(a)); }
EMULATED void store_si512(void* to, const __m512i& a) {
  if (reinterpret_cast<uintptr_t>(to) % 64 != 0) __builtin_trap();
  storeu_si512(to, a);
}
// Lanes that the mask leaves out are not touched.
EMULATED __m512i maskz_loadu_epi16(__mmask32 k, const void* from) {
  return masked_load<uint16_t, 512, __m512i>(k, from);
}
EMULATED __m512i maskz_loadu_epi32(__mmask16 k, const void* from) {
  return masked_load<uint32_t, 512, __m512i>(k, from);
}
EMULATED __m256i maskz_loadu_epi8_256(__mmask32 k, const void* from) {
  return masked_load<uint8_t, 256, __m256i>(k, from);
}
EMULATED void mask_storeu_epi16(void* to, __mmask32 k, const __m512i& a) {
  const auto x = Register<uint16_t>::of(a);
  for (int i = 0; i < 32; ++i) {
    if (k >> i & 1) std::memcpy(static_cast<uint16_t*>(to) + i, &x.lane[i], 2);
  }
}

EMULATED __m512i set1_epi8(int8_t a) { return fill<int8_t>([&](int) { return a; }); }
EMULATED __m512i set1_epi16(int16_t a) { return fill<int16_t>([&](int) { return a; }); }
EMULATED __m512i set1_epi32(int32_t a) { return fill<int32_t>([&](int) { return a; }); }
EMULATED __m512i set1_epi64(int64_t a) { return fill<int64_t>([&](int) { return a; }); }
EMULATED __m512 set1_ps(float a) { return as<__m512>(fill<float>([&](int) { return a; })); }
EMULATED __m512i setr_epi32(int e0, int e1, int e2, int e3, int e4, int e5, int e6, int e7, int e8,
                            int e9, int e10, int e11, int e12, int e13, int e14, int e15) {
  const int lanes[16] = {e0, e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12, e13, e14, e15};
  return fill<int32_t>([&](int i) { return lanes[i]; });
}
EMULATED __m512i set_epi64(int64_t e7, int64_t e6, int64_t e5, int64_t e4, int64_t e3, int64_t e2,
                           int64_t e1, int64_t e0) {
  const int64_t lanes[8] = {e0, e1, e2, e3, e4, e5, e6, e7};
  return fill<int64_t>([&](int i) { return lanes[i]; });
}

EMULATED __m512i castps_si512(const __m512& a) { return as<__m512i>(a); }
EMULATED __m512 castsi512_ps(const __m512i& a) { return as<__m512>(a); }
EMULATED __m512i castsi256_si512(const __m256i& a) {
  const auto x = Register<uint64_t, 256>::of(a);
  return fill<uint64_t>([&](int i) { return i < 4 ? x.lane[i] : 0xa55a3cc3f00f9669u; });
}
EMULATED __m256i extracti64x4_epi64(const __m512i& a, int half) {
  const auto x = Register<uint64_t>::of(a);
  Register<uint64_t, 256> result;
  for (int i = 0; i < 4; ++i) result.lane[i] = x.lane[half % 2 * 4 + i];
  return as<__m256i>(result);
}
EMULATED __m256i castsi512_si256(const __m512i& a) { return extracti64x4_epi64(a, 0); }
EMULATED __m512i maskz_inserti64x4(__mmask8 k, const __m512i& a, const __m256i& b, int half) {
  const auto x = Register<uint64_t>::of(a);
  const auto y = Register<uint64_t, 256>::of(b);
  return zeroed<uint64_t>(
      k, fill<uint64_t>([&](int i) { return i / 4 == half % 2 ? y.lane[i % 4] : x.lane[i]; }));
}
EMULATED __m512i broadcast_i32x4(const __m128i& a) {
  const auto x = Register<uint32_t, 128>::of(a);
  return fill<uint32_t>([&](int i) { return x.lane[i % 4]; });
}
EMULATED __m512i cvtepu16_epi32(const __m256i& a) {
  const auto x = Register<uint16_t, 256>::of(a);
  return fill<uint32_t>([&](int i) { return x.lane[i]; });
}
EMULATED __m512i cvtepu8_epi16(const __m256i& a) {
  const auto x = Register<uint8_t, 256>::of(a);
  return fill<uint16_t>([&](int i) { return x.lane[i]; });
}
EMULATED __m512 maskz_cvtph_ps(__mmask16 k, const __m256i& a) {
  const auto x = Register<uint16_t, 256>::of(a);
  return as<__m512>(zeroed<float>(k, fill<float>([&](int i) {
    const int exponent = x.lane[i] >> 10 & 31, fraction = x.lane[i] & 1023;
    float value = std::ldexp(exponent ? 1024 + fraction : fraction, std::max(exponent, 1) - 25);
    if (exponent == 31) value = fraction ? NAN : INFINITY;
    return x.lane[i] >> 15 ? -value : value;
  })));
}

EMULATED __m512i and_si512(const __m512i& a, const __m512i& b) { return a & b; }
EMULATED __m512i or_si512(const __m512i& a, const __m512i& b) { return a | b; }
EMULATED __m512i add_epi8(const __m512i& a, const __m512i& b) {
  return map<uint8_t>(a, b, [](uint8_t x, uint8_t y) { return x + y; });
}
EMULATED __m512i add_epi16(const __m512i& a, const __m512i& b) {
  return map<uint16_t>(a, b, [](uint16_t x, uint16_t y) { return x + y; });
}
EMULATED __m512i add_epi32(const __m512i& a, const __m512i& b) {
  return map<uint32_t>(a, b, [](uint32_t x, uint32_t y) { return x + y; });
}
EMULATED __m512 mul_ps(const __m512& a, const __m512& b) { return a * b; }
EMULATED __m512i mulhi_epu16(const __m512i& a, const __m512i& b) {
  return map<uint16_t>(a, b, [](uint32_t x, uint32_t y) { return x * y >> 16; });
}
EMULATED __m512i madd_epi16(const __m512i& a, const __m512i& b) {
  const auto x = Register<int16_t>::of(a), y = Register<int16_t>::of(b);
  const auto product = [&](int i) { return static_cast<int64_t>(x.lane[i]) * y.lane[i]; };
  return fill<int32_t>([&](int i) { return product(2 * i) + product(2 * i + 1); });
}
EMULATED __m512i slli_epi16(const __m512i& a, unsigned count) {
  return map<uint16_t>(a, [&](uint32_t x) { return count < 16 ? x << count : 0; });
}
EMULATED __m512i slli_epi32(const __m512i& a, unsigned count) {
  return map<uint32_t>(a, [&](uint32_t x) { return count < 32 ? x << count : 0; });
}
EMULATED __m512i srli_epi16(const __m512i& a, unsigned count) {
  return map<uint16_t>(a, [&](uint32_t x) { return count < 16 ? x >> count : 0; });
}
EMULATED __m512i srli_epi32(const __m512i& a, unsigned count) {
  return map<uint32_t>(a, [&](uint32_t x) { return count < 32 ? x >> count : 0; });
}
EMULATED __m512i srai_epi16(const __m512i& a, unsigned count) {
  return map<int16_t>(a, [&](int x) { return x >> std::min(count, 15u); });
}
EMULATED __m512i srlv_epi32(const __m512i& a, const __m512i& counts) {
  return map<uint32_t>(a, counts, [](uint32_t x, uint32_t count) {
    return count < 32 ? x >> count : 0;
  });
}
EMULATED __m512i ternarylogic_epi32(const __m512i& a, const __m512i& b, const __m512i& c,
                                    int table) {
  const auto x = Register<uint32_t>::of(a), y = Register<uint32_t>::of(b);
  const auto z = Register<uint32_t>::of(c);
  return fill<uint32_t>([&](int i) {
    uint32_t result = 0;
    for (int bit = 0; bit < 32; ++bit) {
      const uint32_t row = (x.lane[i] >> bit & 1) << 2 | (y.lane[i] >> bit & 1) << 1 |
                           (z.lane[i] >> bit & 1);
      result |= static_cast<uint32_t>(table >> row & 1) << bit;
    }
    return result;
  });
}
// Subnormal numbers are zeros, and the second product of a pair is added first.
template <typename Halves>
EMULATED __m512 dpbf16_ps(const __m512& sum, const Halves& a, const Halves& b) {
  const auto x = Register<float>::of(a), y = Register<float>::of(b), to = Register<float>::of(sum);
  return as<__m512>(fill<float>([&](int i) {
    float total = flush(to.lane[i]);
    for (int half : {1, 0}) {
      total = flush(std::fma(widen(x.lane[i], half), widen(y.lane[i], half), total));
    }
    return total;
  }));
}
EMULATED __m512i srlv_epi16(const __m512i& a, const __m512i& counts) {
  return map<uint16_t>(a, counts, [](uint32_t x, uint32_t count) {
    return count < 16 ? x >> count : 0;
  });
}

EMULATED __m512i mask_add_epi8(const __m512i& src, __mmask64 k, const __m512i& a,
                               const __m512i& b) {
  return blend<uint8_t>(k, add_epi8(a, b), src);
}
EMULATED __m512i mask_add_epi16(const __m512i& src, __mmask32 k, const __m512i& a,
                                const __m512i& b) {
  return blend<uint16_t>(k, add_epi16(a, b), src);
}
EMULATED __m512i mask_or_epi32(const __m512i& src, __mmask16 k, const __m512i& a,
                               const __m512i& b) {
  return blend<uint32_t>(k, a | b, src);
}
EMULATED __m512i maskz_mov_epi8(__mmask64 k, const __m512i& a) { return zeroed<uint8_t>(k, a); }
EMULATED __m512i maskz_mov_epi16(__mmask32 k, const __m512i& a) { return zeroed<uint16_t>(k, a); }
EMULATED __mmask32 cmpgt_epi16_mask(const __m512i& a, const __m512i& b) {
  return mask_of<int16_t>(a, b, [](int x, int y) { return x > y; });
}
EMULATED __mmask16 cmpgt_epi32_mask(const __m512i& a, const __m512i& b) {
  return mask_of<int32_t>(a, b, [](int x, int y) { return x > y; });
}
EMULATED __mmask64 test_epi8_mask(const __m512i& a, const __m512i& b) {
  return mask_of<uint8_t>(a, b, [](int x, int y) { return (x & y) != 0; });
}
EMULATED __mmask32 test_epi16_mask(const __m512i& a, const __m512i& b) {
  return mask_of<uint16_t>(a, b, [](int x, int y) { return (x & y) != 0; });
}

EMULATED __mmask16 movepi32_mask(const __m512i& a) {
  return mask_of<int32_t>(a, a, [](int x, int) { return x < 0; });
}
EMULATED __mmask32 testn_epi16_mask(const __m512i& a, const __m512i& b) {
  return mask_of<uint16_t>(a, b, [](int x, int y) { return (x & y) == 0; });
}

// Within quarters of 128 bits.
EMULATED __m512i unpack_epi64(const __m512i& a, const __m512i& b, int high) {
  const auto x = Register<uint64_t>::of(a), y = Register<uint64_t>::of(b);
  return fill<uint64_t>([&](int i) { return (i % 2 ? y : x).lane[i / 2 * 2 + high]; });
}
EMULATED __m512i unpacklo_epi64(const __m512i& a, const __m512i& b) {
  return unpack_epi64(a, b, 0);
}
EMULATED __m512i unpackhi_epi64(const __m512i& a, const __m512i& b) {
  return unpack_epi64(a, b, 1);
}
EMULATED __m512i shuffle_epi8(const __m512i& a, const __m512i& control) {
  const auto x = Register<uint8_t>::of(a), at = Register<uint8_t>::of(control);
  return fill<uint8_t>([&](int i) {
    return at.lane[i] & 0x80 ? 0 : x.lane[i / 16 * 16 + at.lane[i] % 16];
  });
}
EMULATED __m512i maskz_shuffle_epi8(__mmask64 k, const __m512i& a, const __m512i& control) {
  return zeroed<uint8_t>(k, shuffle_epi8(a, control));
}
EMULATED __m512i shuffle_epi32(const __m512i& a, int control) {
  const auto x = Register<uint32_t>::of(a);
  return fill<uint32_t>([&](int i) { return x.lane[i / 4 * 4 + (control >> i % 4 * 2 & 3)]; });
}
EMULATED __m512 maskz_permutevar_ps(__mmask16 k, const __m512& a, const __m512i& control) {
  const auto x = Register<uint32_t>::of(a), at = Register<uint32_t>::of(control);
  return as<__m512>(zeroed<uint32_t>(
      k, fill<uint32_t>([&](int i) { return x.lane[i / 4 * 4 + at.lane[i] % 4]; })));
}

// Across the register.
EMULATED __m512i permutexvar_epi32(const __m512i& index, const __m512i& a) {
  const auto x = Register<uint32_t>::of(a), at = Register<uint32_t>::of(index);
  return fill<uint32_t>([&](int i) { return x.lane[at.lane[i] % 16]; });
}
EMULATED __m512i maskz_compress_epi32(__mmask16 k, const __m512i& a) {
  const auto x = Register<uint32_t>::of(a);
  Register<uint32_t> result = {};
  for (int i = 0, next = 0; i < 16; ++i) {
    if (k >> i & 1) result.lane[next++] = x.lane[i];
  }
  return as<__m512i>(result);
}
EMULATED __m512i maskz_expand_epi16(__mmask32 k, const __m512i& a) {
  const auto x = Register<uint16_t>::of(a);
  int next = 0;
  return fill<uint16_t>([&](int i) { return k >> i & 1 ? x.lane[next++] : 0; });
}
EMULATED __m512i permutexvar_epi64(const __m512i& index, const __m512i& a) {
  const auto x = Register<uint64_t>::of(a), at = Register<uint64_t>::of(index);
  return fill<uint64_t>([&](int i) { return x.lane[at.lane[i] % 8]; });
}
EMULATED __m512i maskz_permutexvar_epi16(__mmask32 k, const __m512i& index, const __m512i& a) {
  const auto x = Register<uint16_t>::of(a), at = Register<uint16_t>::of(index);
  return zeroed<uint16_t>(k, fill<uint16_t>([&](int i) { return x.lane[at.lane[i] % 32]; }));
}
EMULATED __m512i mask_permutexvar_epi16(const __m512i& src, __mmask32 k, const __m512i& index,
                                        const __m512i& a) {
  return blend<uint16_t>(k, maskz_permutexvar_epi16(~0u, index, a), src);
}
EMULATED __m512i permutex2var_epi16(const __m512i& a, const __m512i& index, const __m512i& b) {
  const auto x = Register<uint16_t>::of(a), y = Register<uint16_t>::of(b);
  const auto at = Register<uint16_t>::of(index);
  return fill<uint16_t>([&](int i) {
    return (at.lane[i] & 32 ? y : x).lane[at.lane[i] % 32];
  });
}

}  // namespace emulated

// Macros of the compiler's where it does not optimise.
#undef _mm512_extracti64x4_epi64
#undef _mm512_maskz_inserti64x4
#undef _mm512_shuffle_epi32
#undef _mm512_slli_epi16
#undef _mm512_slli_epi32
#undef _mm512_srai_epi16
#undef _mm512_srli_epi16
#undef _mm512_srli_epi32
#undef _mm512_ternarylogic_epi32
#undef _mm512_setr_epi32

#define _mm256_maskz_loadu_epi8 emulated::maskz_loadu_epi8_256
#define _mm512_add_epi16 emulated::add_epi16
#define _mm512_add_epi32 emulated::add_epi32
#define _mm512_and_si512 emulated::and_si512
#define _mm512_broadcast_i32x4 emulated::broadcast_i32x4
#define _mm512_castps_si512 emulated::castps_si512
#define _mm512_castsi256_si512 emulated::castsi256_si512
#define _mm512_castsi512_ps emulated::castsi512_ps
#define _mm512_castsi512_si256 emulated::castsi512_si256
#define _mm512_cmpgt_epi16_mask emulated::cmpgt_epi16_mask
#define _mm512_cmpgt_epi32_mask emulated::cmpgt_epi32_mask
#define _mm512_cvtepu16_epi32 emulated::cvtepu16_epi32
#define _mm512_cvtepu8_epi16 emulated::cvtepu8_epi16
#define _mm512_dpbf16_ps emulated::dpbf16_ps
#define _mm512_extracti64x4_epi64 emulated::extracti64x4_epi64
#define _mm512_load_si512 emulated::load_si512
#define _mm512_loadu_ps emulated::loadu_ps
#define _mm512_loadu_si512 emulated::loadu_si512
#define _mm512_madd_epi16 emulated::madd_epi16
#define _mm512_mask_add_epi16 emulated::mask_add_epi16
#define _mm512_mask_add_epi8 emulated::mask_add_epi8
#define _mm512_mask_or_epi32 emulated::mask_or_epi32
#define _mm512_mask_permutexvar_epi16 emulated::mask_permutexvar_epi16
#define _mm512_mask_storeu_epi16 emulated::mask_storeu_epi16
#define _mm512_maskz_compress_epi32 emulated::maskz_compress_epi32
#define _mm512_maskz_cvtph_ps emulated::maskz_cvtph_ps
#define _mm512_maskz_expand_epi16 emulated::maskz_expand_epi16
#define _mm512_maskz_inserti64x4 emulated::maskz_inserti64x4
#define _mm512_maskz_loadu_epi16 emulated::maskz_loadu_epi16
#define _mm512_maskz_loadu_epi32 emulated::maskz_loadu_epi32
#define _mm512_maskz_mov_epi16 emulated::maskz_mov_epi16
#define _mm512_maskz_mov_epi8 emulated::maskz_mov_epi8
#define _mm512_maskz_permutevar_ps emulated::maskz_permutevar_ps
#define _mm512_maskz_permutexvar_epi16 emulated::maskz_permutexvar_epi16
#define _mm512_maskz_shuffle_epi8 emulated::maskz_shuffle_epi8
#define _mm512_movepi32_mask emulated::movepi32_mask
#define _mm512_mul_ps emulated::mul_ps
#define _mm512_mulhi_epu16 emulated::mulhi_epu16
#define _mm512_or_si512 emulated::or_si512
#define _mm512_permutex2var_epi16 emulated::permutex2var_epi16
#define _mm512_permutexvar_epi32 emulated::permutexvar_epi32
#define _mm512_permutexvar_epi64 emulated::permutexvar_epi64
#define _mm512_set1_epi16 emulated::set1_epi16
#define _mm512_set1_epi32 emulated::set1_epi32
#define _mm512_set1_epi64 emulated::set1_epi64
#define _mm512_set1_epi8 emulated::set1_epi8
#define _mm512_set1_ps emulated::set1_ps
#define _mm512_set_epi64 emulated::set_epi64
#define _mm512_setr_epi32 emulated::setr_epi32
#define _mm512_shuffle_epi32 emulated::shuffle_epi32
#define _mm512_shuffle_epi8 emulated::shuffle_epi8
#define _mm512_slli_epi16 emulated::slli_epi16
#define _mm512_slli_epi32 emulated::slli_epi32
#define _mm512_srai_epi16 emulated::srai_epi16
#define _mm512_srli_epi16 emulated::srli_epi16
#define _mm512_srli_epi32 emulated::srli_epi32
#define _mm512_srlv_epi16 emulated::srlv_epi16
#define _mm512_srlv_epi32 emulated::srlv_epi32
#define _mm512_store_si512 emulated::store_si512
#define _mm512_storeu_si512 emulated::storeu_si512
#define _mm512_ternarylogic_epi32 emulated::ternarylogic_epi32
#define _mm512_test_epi16_mask emulated::test_epi16_mask
#define _mm512_test_epi8_mask emulated::test_epi8_mask
#define _mm512_testn_epi16_mask emulated::testn_epi16_mask
#define _mm512_unpackhi_epi64 emulated::unpackhi_epi64
#define _mm512_unpacklo_epi64 emulated::unpacklo_epi64
