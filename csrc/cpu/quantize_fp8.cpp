// Rows to e4m3: a row is read twice, the second time from the cache.

#include "quantize_fp8.h"

#include "fp8_rows.h"
#include "isa.h"

namespace {

// x as bytes of e4m3; a NaN is 0x7f and its sign.
template <int L>
RAC_INLINE void store_e4m3(uint8_t* to, F32<L> x) {
  const I32<L> nan = (x != x) & 0x7f;
  const I32<L> magnitude = magnitude_e4m3<L>(within_e4m3<L>(x)) & 0x7f;
  const I32<L> bytes = magnitude | nan | (reinterpret_cast<I32<L>>(x) >> 24 & 0x80);
  int32_t words[L];
  std::memcpy(words, &bytes, sizeof(words));
  for (int i = 0; i < L; ++i) to[i] = static_cast<uint8_t>(words[i]);
}

template <int L, typename T>
RAC_INLINE void quantize(const QuantizeRows& job) {
#pragma omp for schedule(static)
  for (int64_t row = 0; row < job.rows; ++row) {
    const auto* x = static_cast<const typename T::Storage*>(job.x) + row * job.stride;
    uint8_t* to = job.values + row * job.columns;
    const float scale = fp8_scale(largest_magnitude<L, T>(x, job.columns), job.bfloat16_scale);
    job.scale[row] = scale;
    int64_t i = 0;
    for (; i + L <= job.columns; i += L) {
      store_e4m3<L>(to + i, T::template load<L>(x + i) / scale);
    }
    if (i == job.columns) continue;
    uint8_t last[L];
    store_e4m3<L>(last, load_first<L, T>(x + i, job.columns - i) / scale);
    std::memcpy(to + i, last, job.columns - i);
  }
}

template <int L>
RAC_INLINE void quantize_any(const QuantizeRows& job) {
  if (job.dtype == 0) quantize<L, Float>(job);
  else if (job.dtype == 1) quantize<L, BFloat16>(job);
  else quantize<L, Float16>(job);
}

void quantize_baseline(const QuantizeRows& job) { quantize_any<4>(job); }
RAC_AVX2 void quantize_avx2(const QuantizeRows& job) { quantize_any<8>(job); }
RAC_AVX512 void quantize_avx512(const QuantizeRows& job) { quantize_any<16>(job); }

}  // namespace

void quantize_fp8_rows(const QuantizeRows& job) {
  const auto run = pick(quantize_baseline, quantize_avx2, quantize_avx512);
#pragma omp parallel num_threads(job.threads)
  run(job);
}
