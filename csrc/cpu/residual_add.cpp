// y = a + b in float32, rounded once: the residual stream after attention and after the MLP.

#include "decoder_layer.h"
#include "elements.h"

namespace {

template <int L, typename T>
RAC_INLINE void add_elements(const void* a, const void* b, void* y, int64_t count) {
  using Storage = typename T::Storage;
  const auto *from_a = static_cast<const Storage*>(a), *from_b = static_cast<const Storage*>(b);
  auto* to = static_cast<Storage*>(y);
  int64_t i = 0;
  for (; i + L <= count; i += L) {
    T::template store<L>(to + i, T::template load<L>(from_a + i) + T::template load<L>(from_b + i));
  }
  if (i == count) return;
  const int64_t rest = count - i;
  const F32<L> sum = load_first<L, T>(from_a + i, rest) + load_first<L, T>(from_b + i, rest);
  store_first<L, T>(to + i, sum, rest);
}

template <int L>
RAC_INLINE void add_any(const void* a, const void* b, void* y, int64_t count, int dtype) {
  if (dtype == 0) add_elements<L, Float>(a, b, y, count);
  else add_elements<L, BFloat16>(a, b, y, count);
}

void add_baseline(const void* a, const void* b, void* y, int64_t count, int dtype) {
  add_any<4>(a, b, y, count, dtype);
}
RAC_AVX2 void add_avx2(const void* a, const void* b, void* y, int64_t count, int dtype) {
  add_any<8>(a, b, y, count, dtype);
}
RAC_AVX512 void add_avx512(const void* a, const void* b, void* y, int64_t count, int dtype) {
  add_any<16>(a, b, y, count, dtype);
}

}  // namespace

void residual_add(const void* a, const void* b, void* y, int64_t count, int dtype) {
  pick(add_baseline, add_avx2, add_avx512)(a, b, y, count, dtype);
}
