// silu(gate) * up, and its output appended to a staging ring while it is still in the cache.

#include "capture.h"
#include "elements.h"
#include "exponential.h"

namespace {

// Below -88, where torch's exp overflows and its silu is -0, this one is about -1e-36.
template <int L, typename T>
RAC_INLINE F32<L> swiglu(F32<L> gate, F32<L> up) {
  return T::template round<L>(gate / (1.0f + exponential<L>(-gate))) * up;
}

template <int L, typename T>
RAC_INLINE void swiglu_row(const typename T::Storage* gate, const typename T::Storage* up,
                           int64_t features, typename T::Storage* y) {
  int64_t i = 0;
  for (; i + L <= features; i += L) {
    const F32<L> g = T::template load<L>(gate + i), u = T::template load<L>(up + i);
    T::template store<L>(y + i, swiglu<L, T>(g, u));
  }
  if (i == features) return;
  const int64_t rest = features - i;
  const F32<L> g = load_first<L, T>(gate + i, rest), u = load_first<L, T>(up + i, rest);
  store_first<L, T>(y + i, swiglu<L, T>(g, u), rest);
}

template <int L, typename T>
RAC_INLINE void swiglu_rows(const Swiglu& job, const std::vector<uint8_t*>& targets) {
  using Storage = typename T::Storage;
#pragma omp for schedule(static)
  for (int64_t b = 0; b < job.batch; ++b) {
    Storage* y = static_cast<Storage*>(job.y) + b * job.features;
    swiglu_row<L, T>(static_cast<const Storage*>(job.gate) + b * job.stride_gate,
                     static_cast<const Storage*>(job.up) + b * job.stride_up, job.features, y);
    if (!targets.empty() && targets[b]) std::memcpy(targets[b], y, job.features * sizeof(Storage));
  }
}

template <int L>
RAC_INLINE void swiglu_any(const Swiglu& job, const std::vector<uint8_t*>& targets) {
  if (job.dtype == 0) swiglu_rows<L, Float>(job, targets);
  else swiglu_rows<L, BFloat16>(job, targets);
}

using Targets = std::vector<uint8_t*>;
void swiglu_baseline(const Swiglu& job, const Targets& targets) { swiglu_any<4>(job, targets); }
RAC_AVX2 void swiglu_avx2(const Swiglu& job, const Targets& targets) {
  swiglu_any<8>(job, targets);
}
RAC_AVX512 void swiglu_avx512(const Swiglu& job, const Targets& targets) {
  swiglu_any<16>(job, targets);
}

}  // namespace

void swiglu_capture(const Swiglu& job, const Ring& ring) {
  const Targets targets = append_rows(ring, job.batch, job.features * (job.dtype == 0 ? 4 : 2));
  const auto run = pick(swiglu_baseline, swiglu_avx2, swiglu_avx512);
#pragma omp parallel num_threads(job.threads)
  run(job, targets);
}
