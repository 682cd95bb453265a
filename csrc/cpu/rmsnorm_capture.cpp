// RMSNorm, and its output appended to a staging ring while it is still in the cache.
//
// Squares are summed in 32 partial sums whatever the instruction set, then in a tree, without fused
// multiply-adds: the same bits everywhere.

#include <algorithm>
#include <cmath>

#include "capture.h"
#include "elements.h"

namespace {

constexpr int PARTS = 32;

template <int L, typename T>
RAC_INLINE float mean_square(const typename T::Storage* x, int64_t features) {
  constexpr int K = PARTS / L;
  F32<L> sums[K] = {};
  int64_t i = 0;
  for (; i + PARTS <= features; i += PARTS) {
    for (int k = 0; k < K; ++k) {
      const F32<L> value = T::template load<L>(x + i + k * L);
      sums[k] += value * value;
    }
  }
  for (int k = 0; k < K && i < features; ++k, i += L) {
    const F32<L> value = load_first<L, T>(x + i, std::min<int64_t>(L, features - i));
    sums[k] += value * value;
  }
  float parts[PARTS];
  std::memcpy(parts, sums, sizeof(parts));
  for (int width = PARTS / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) parts[j] += parts[j + width];
  }
  return parts[0] / static_cast<float>(features);
}

template <int L, typename T>
RAC_INLINE void normalize(const typename T::Storage* x, const typename T::Storage* weight,
                          float scale, int64_t features, typename T::Storage* y) {
  int64_t i = 0;
  for (; i + L <= features; i += L) {
    const F32<L> normed = T::template round<L>(T::template load<L>(x + i) * scale);
    T::template store<L>(y + i, T::template load<L>(weight + i) * normed);
  }
  if (i == features) return;
  const int64_t rest = features - i;
  const F32<L> normed = T::template round<L>(load_first<L, T>(x + i, rest) * scale);
  store_first<L, T>(y + i, load_first<L, T>(weight + i, rest) * normed, rest);
}

template <int L, typename T>
RAC_INLINE void norm_rows(const RmsNorm& job, const std::vector<uint8_t*>& targets) {
  using Storage = typename T::Storage;
#pragma omp for schedule(static)
  for (int64_t b = 0; b < job.batch; ++b) {
    const Storage* x = static_cast<const Storage*>(job.x) + b * job.stride_x;
    Storage* y = static_cast<Storage*>(job.y) + b * job.features;
    const float scale = 1.0f / std::sqrt(mean_square<L, T>(x, job.features) + job.eps);
    normalize<L, T>(x, static_cast<const Storage*>(job.weight), scale, job.features, y);
    if (!targets.empty() && targets[b]) std::memcpy(targets[b], y, job.features * sizeof(Storage));
  }
}

template <int L>
RAC_INLINE void norm_any(const RmsNorm& job, const std::vector<uint8_t*>& targets) {
  if (job.dtype == 0) norm_rows<L, Float>(job, targets);
  else norm_rows<L, BFloat16>(job, targets);
}

using Targets = std::vector<uint8_t*>;
void norm_baseline(const RmsNorm& job, const Targets& targets) { norm_any<4>(job, targets); }
RAC_AVX2 void norm_avx2(const RmsNorm& job, const Targets& targets) { norm_any<8>(job, targets); }
RAC_AVX512 void norm_avx512(const RmsNorm& job, const Targets& targets) {
  norm_any<16>(job, targets);
}

}  // namespace

void rmsnorm_capture(const RmsNorm& job, const Ring& ring) {
  const Targets targets = append_rows(ring, job.batch, job.features * (job.dtype == 0 ? 4 : 2));
  const auto run = pick(norm_baseline, norm_avx2, norm_avx512);
#pragma omp parallel num_threads(job.threads)
  run(job, targets);
}
