// linear_sparse with AVX2 and FMA.

#include "linear_sparse.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

// What follows is compiled for AVX2; what is included above is not, since the linker may share it.
#pragma GCC target("avx2,fma,f16c,popcnt,bmi,bmi2")

#include "linear_rows.h"

namespace {

struct Avx2 {
  static constexpr int L = 8;

  RAC_INLINE I32<8> spread(const uint8_t* values, const uint8_t* shuffle) {
    // in either half: vpshufb does not cross
    const __m256i both =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
    const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(shuffle));
    return reinterpret_cast<I32<8>>(_mm256_shuffle_epi8(both, order));
  }

  template <int GROUPS, bool HALF>
  RAC_INLINE I32<8> codes(const uint8_t* from) {
    if constexpr (GROUPS == 2) {
      I32<8> words;
      std::memcpy(&words, from, sizeof(words));
      return words;
    }
    const __m256i both =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    const __m256i halves = _mm256_setr_epi32(0, 0, 0, 0, 16, 16, 16, 16);
    return reinterpret_cast<I32<8>>(_mm256_srlv_epi32(both, halves));
  }

  template <int TB>
  RAC_INLINE I32<8> places(I32<8> codes, int i) {
    if (TB > 2 || i == 0) return codes >> (2 * i);
    const __m256i power = _mm256_set1_epi16(static_cast<int16_t>(1 << (16 - 2 * i)));
    return reinterpret_cast<I32<8>>(
        _mm256_mulhi_epu16(reinterpret_cast<__m256i>(codes), power));
  }

  RAC_INLINE I32<8> lower_halves(I32<8> words) {
    const __m256i power = _mm256_set1_epi32(1 << 12);
    return reinterpret_cast<I32<8>>(_mm256_madd_epi16(reinterpret_cast<__m256i>(words), power));
  }

  RAC_INLINE F32<8> pick(F32<8> x, I32<8> codes) {
    return reinterpret_cast<F32<8>>(_mm256_permutevar_ps(reinterpret_cast<__m256>(x),
                                                         reinterpret_cast<__m256i>(codes)));
  }

  RAC_INLINE void keep(F32<8>& x) { asm("" : "+x"(x)); }

  RAC_INLINE F32<8> load_fp16(const uint16_t* from) {
    return reinterpret_cast<F32<8>>(
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  }
  RAC_INLINE F32<8> widen_fp16(I32<8> words) {
    const __m256i upper = _mm256_srli_epi32(reinterpret_cast<__m256i>(words), 16);
    const __m128i low = _mm256_castsi256_si128(upper), high = _mm256_extracti128_si256(upper, 1);
    return reinterpret_cast<F32<8>>(_mm256_cvtph_ps(_mm_packus_epi32(low, high)));
  }
};

}  // namespace

void arrange_avx2(const SparseLinear& job, const LinearScratch& scratch, int64_t group) {
  arrange_group<Avx2>(job, scratch, group);
}

void linear_avx2(const SparseLinear& job, const LinearScratch& scratch) {
  linear<Avx2>(job, scratch);
}

#else

void arrange_avx2(const SparseLinear& job, const LinearScratch& scratch, int64_t group) {
  arrange_baseline(job, scratch, group);
}

void linear_avx2(const SparseLinear& job, const LinearScratch& scratch) { linear_baseline(job, scratch); }

#endif
