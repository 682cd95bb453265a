// linear_sparse by AVX-512's products of bf16 pairs, for W and x in bf16.

#include "linear_sparse.h"

#include "isa.h"

#if defined(RAC_HAS_BF16)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

// What follows is compiled for these; what is included above is not, since the linker may share it.
#if defined(RAC_EMULATED_AVX512)  // where the tests have none
#pragma GCC target("avx2,fma,popcnt,bmi,bmi2")
#else
#pragma GCC target( \
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vbmi2,fma,popcnt,bmi,bmi2")
#endif

// sum + the products of pairs of bf16.
RAC_INLINE __m512 add_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

#include "dots_2to4.h"
#include "dots_rows.h"
#include "linear_rows.h"

namespace {

// Call `run(packing, tokens at a time)` for what the job holds.
template <typename Run>
RAC_INLINE void with_dots(const SparseLinear& job, Run run) {
  const auto with = [&](auto packing) {
    const int64_t at_once = tokens_at_once(job);
    if (at_once == 1) run(packing, std::integral_constant<int, 1>());
    else if (at_once == 2) run(packing, std::integral_constant<int, 2>());
    else if (at_once == 4) run(packing, std::integral_constant<int, 4>());
    else run(packing, std::integral_constant<int, 8>());
  };
  if (!job.codes) with(Packed<Bf16, Packing::DENSE>());
  else if (job.offsets) with(Packed<Bf16, Packing::BITMAP>());
  else with(Packed<Bf16, Packing::TWO_TO_FOUR>());
}

}  // namespace

void arrange_dots(const SparseLinear& job, const LinearScratch& scratch, int64_t group) {
  with_dots(job, [&](auto packing, auto at_once) {
    constexpr bool QUARTERS = decltype(packing)::PACKING == Packing::TWO_TO_FOUR;
    constexpr int TB = decltype(at_once)::value;
    auto* to = reinterpret_cast<uint16_t*>(scratch.panels) + group * TB * job.padded;
    arrange_pairs<TB, std::conditional_t<QUARTERS, InQuarters, InColumns>>(job, scratch,
                                                                           group * TB, to);
  });
}

void linear_dots(const SparseLinear& job, const LinearScratch& scratch) {
  const auto* panels = reinterpret_cast<const uint16_t*>(scratch.panels);
  with_dots(job, [&](auto packing, auto at_once) {
    constexpr Packing PACKING = decltype(packing)::PACKING;
    constexpr int TB = decltype(at_once)::value;
    if constexpr (PACKING == Packing::DENSE) {
      constexpr int RB = TB <= 2 || TB == 8 ? 2 : 4;
      all_rows<RB, TB>(job, panels, [&](int64_t row, int64_t token, const uint16_t* x) {
        dots_dense<RB, TB>(job, row, token, x);
      });
    } else if constexpr (PACKING == Packing::BITMAP) {
      constexpr int RB = TB == 8 ? 2 : 4;
      all_rows<RB, TB>(job, panels, [&](int64_t row, int64_t token, const uint16_t* x) {
        dots_bitmap<RB, TB>(job, row, token, x);
      });
    } else {
      all_rows<4, TB>(job, panels, [&](int64_t row, int64_t token, const uint16_t* x) {
        dots_2to4<TB>(job, row, token, x);
      });
    }
  });
}

#else

#include <cstdlib>

// There is no such level then, so that nobody calls these.
void arrange_dots(const SparseLinear&, const LinearScratch&, int64_t) { std::abort(); }
void linear_dots(const SparseLinear&, const LinearScratch&) { std::abort(); }

#endif
