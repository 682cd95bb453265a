// linear_few and linear_many with AVX2 and FMA.

#include "linear_sparse.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

// What follows is compiled for AVX2; what is included above is not, since the linker may share it.
#pragma GCC target("avx2,fma,popcnt")

#include "linear_few.h"
#include "linear_many.h"

namespace {

struct Avx2 {
  static constexpr int L = 8;

  template <int BYTES>
  RAC_INLINE I32<8> spread(const uint8_t* values, const uint8_t* shuffle) {
    __m256i both;  // the values in either half: vpshufb does not cross
    if constexpr (BYTES == 16) {
      const auto* from = reinterpret_cast<const __m128i*>(values);
      both = _mm256_broadcastsi128_si256(_mm_loadu_si128(from));
    } else if constexpr (BYTES == 8) {
      int64_t read;
      std::memcpy(&read, values, 8);
      both = _mm256_set1_epi64x(read);
    } else {
      int32_t read;
      std::memcpy(&read, values, 4);
      both = _mm256_set1_epi32(read);
    }
    const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(shuffle));
    return reinterpret_cast<I32<8>>(_mm256_shuffle_epi8(both, order));
  }
};

}  // namespace

void few_avx2(const SparseLinear& job, const LinearScratch& scratch) {
  few<Avx2>(job, scratch);
}

void many_avx2(const SparseLinear& job, const LinearScratch& scratch) { many<Avx2>(job, scratch); }

#else

void few_avx2(const SparseLinear& job, const LinearScratch& scratch) { few_baseline(job, scratch); }

void many_avx2(const SparseLinear& job, const LinearScratch& scratch) {
  many_baseline(job, scratch);
}

#endif
