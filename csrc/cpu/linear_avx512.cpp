// linear_sparse with AVX-512.

#include "linear_sparse.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

// What follows is compiled for AVX-512; what is included above is not, since the linker may share it.
#if defined(RAC_EMULATED_AVX512)  // where the tests have none
#pragma GCC target("avx2,fma,popcnt,bmi,bmi2")
#define RAC_ANY_REGISTER "+m"
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,popcnt,bmi,bmi2")
#define RAC_ANY_REGISTER "+v"
#endif

#include "linear_rows.h"

namespace {

struct Avx512 {
  static constexpr int L = 16;

  // Two bytes of the bitmap, a half of the register each; vpshufb stays within quarters.
  RAC_INLINE I32<16> spread(const uint8_t* values, const uint8_t* shuffle, const uint8_t* next,
                            const uint8_t* next_shuffle) {
    const __m512i read = halves(both(values), both(next));
    const __m512i orders = halves(order(shuffle), order(next_shuffle));
    return reinterpret_cast<I32<16>>(_mm512_shuffle_epi8(read, orders));
  }
  RAC_INLINE __m256i both(const uint8_t* values) {
    return _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
  }
  RAC_INLINE __m256i order(const uint8_t* shuffle) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(shuffle));
  }
  // All lanes under a mask: GCC 12 takes the undefined ones of the plain intrinsics for variables
  // that nobody set.
  RAC_INLINE __m512i halves(__m256i low, __m256i high) {
    return _mm512_maskz_inserti64x4(0xff, _mm512_castsi256_si512(low), high, 1);
  }

  template <int GROUPS, bool HALF>
  RAC_INLINE I32<16> codes(const uint8_t* from) {
    I32<16> words = {};
    std::memcpy(&words, from, (HALF ? 16 : 32) * GROUPS);
    if constexpr (GROUPS == 2) return words;
    const I32<16> twice =
        __builtin_shuffle(words, I32<16>{0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7});
    return twice >> I32<16>{0, 0, 0, 0, 16, 16, 16, 16, 0, 0, 0, 0, 16, 16, 16, 16};
  }

  template <int TB>
  RAC_INLINE I32<16> places(I32<16> codes, int i) {
    if (TB > 2 || i == 0) return codes >> (2 * i);
    const __m512i power = _mm512_set1_epi16(static_cast<int16_t>(1 << (16 - 2 * i)));
    return reinterpret_cast<I32<16>>(
        _mm512_mulhi_epu16(reinterpret_cast<__m512i>(codes), power));
  }

  RAC_INLINE I32<16> lower_halves(I32<16> words) {
    const __m512i power = _mm512_set1_epi32(1 << 12);
    return reinterpret_cast<I32<16>>(_mm512_madd_epi16(reinterpret_cast<__m512i>(words), power));
  }

  RAC_INLINE F32<16> pick(F32<16> x, I32<16> codes) {
    return reinterpret_cast<F32<16>>(_mm512_maskz_permutevar_ps(
        0xffff, reinterpret_cast<__m512>(x), reinterpret_cast<__m512i>(codes)));
  }

  RAC_INLINE void keep(F32<16>& x) { asm("" : RAC_ANY_REGISTER(x)); }

  // AVX-512 has F16C's instruction itself.
  RAC_INLINE F32<16> load_fp16(const uint16_t* from) {
    __m256i halves;
    std::memcpy(&halves, from, sizeof(halves));
    return reinterpret_cast<F32<16>>(_mm512_maskz_cvtph_ps(0xffff, halves));
  }
  RAC_INLINE F32<16> widen_fp16(I32<16> words) {
    const auto upper = reinterpret_cast<Halves<16>::U32>(words) >> 16;
    const auto halves = __builtin_convertvector(upper, Halves<16>::U16);  // vpmovdw
    return reinterpret_cast<F32<16>>(
        _mm512_maskz_cvtph_ps(0xffff, reinterpret_cast<__m256i>(halves)));
  }
};

}  // namespace

void arrange_avx512(const SparseLinear& job, const LinearScratch& scratch, int64_t group) {
  arrange_group<Avx512>(job, scratch, group);
}

void linear_avx512(const SparseLinear& job, const LinearScratch& scratch) {
  linear<Avx512>(job, scratch);
}

#else

void arrange_avx512(const SparseLinear& job, const LinearScratch& scratch, int64_t group) {
  arrange_baseline(job, scratch, group);
}

void linear_avx512(const SparseLinear& job, const LinearScratch& scratch) {
  linear_baseline(job, scratch);
}

#endif
