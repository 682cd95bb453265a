// linear_few and linear_many with AVX-512.

#include "linear_sparse.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

// What follows is compiled for AVX-512; what is included above is not, since the linker may share it.
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,popcnt")

#include "linear_few.h"
#include "linear_many.h"

namespace {

struct Avx512 {
  static constexpr int L = 16;

  template <int BYTES>
  RAC_INLINE __m128i read(const uint8_t* values) {
    if constexpr (BYTES == 16) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
    } else if constexpr (BYTES == 8) {
      return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(values));
    } else {
      int32_t word;
      std::memcpy(&word, values, 4);
      return _mm_cvtsi32_si128(word);
    }
  }
  RAC_INLINE __m256i order(const uint8_t* shuffle) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(shuffle));
  }

  // Two codes, a half of the register each; vpshufb stays within quarters.
  template <int BYTES>
  RAC_INLINE I32<16> spread(const uint8_t* values, const uint8_t* shuffle, const uint8_t* next,
                            const uint8_t* next_shuffle) {
    const __m256i low = _mm256_broadcastsi128_si256(read<BYTES>(values));
    const __m256i high = _mm256_broadcastsi128_si256(read<BYTES>(next));
    const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    const __m512i orders =
        _mm512_inserti64x4(_mm512_castsi256_si512(order(shuffle)), order(next_shuffle), 1);
    return reinterpret_cast<I32<16>>(_mm512_shuffle_epi8(both, orders));
  }
};

}  // namespace

void few_avx512(const SparseLinear& job, const LinearScratch& scratch) {
  few<Avx512>(job, scratch);
}

void many_avx512(const SparseLinear& job, const LinearScratch& scratch) {
  many<Avx512>(job, scratch);
}

#else

void few_avx512(const SparseLinear& job, const LinearScratch& scratch) {
  few_baseline(job, scratch);
}

void many_avx512(const SparseLinear& job, const LinearScratch& scratch) {
  many_baseline(job, scratch);
}

#endif
