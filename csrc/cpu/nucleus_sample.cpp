// One draw a row from the nucleus of softmax(logits / temperature), without sorting the row.
//
// Two reads of a row give its maximum and its sum of weights, block by block. Ids less likely than
// (1 - top_p) / V weigh less than 1 - top_p together, so the nucleus is among the others: those are
// copied in the order of their ids (blocks whose maximum is too small are not looked at again), and
// the last one that belongs is found by selection. Weights are float32, within 2 ulp of
// exp((logit - maximum) / temperature); 256 of them are added in float32, everything else in
// float64. Sums are made in the same order whatever the instruction set: the same ids everywhere. At
// temperature 0 one read finds the largest.

#include <algorithm>
#include <cmath>
#include <limits>

#include "elements.h"
#include "exponential.h"
#include "kernels.h"
#include "nucleus.h"

namespace {

constexpr int BLOCK = 256;  // logits
constexpr int PARTS = 32;   // partial maxima and sums of a block
constexpr float LOWEST_EXPONENT = -87.0f;  // exp of less counts as 0: not a normal float
// At most this many ids can each hold more than a 1 / FEW of the probability: tried first.
constexpr int FEW = 1024;

struct Scratch {
  explicit Scratch(int64_t vocabulary)
      : maxima(array<float>(vocabulary / BLOCK + 1)),
        sums(array<double>(vocabulary / BLOCK + 1)),
        left(array<int32_t>(vocabulary)),
        candidates(vocabulary) {}
  std::unique_ptr<float[]> maxima;
  std::unique_ptr<double[]> sums;
  std::unique_ptr<int32_t[]> left;
  Candidates candidates;
};

template <int L>
RAC_INLINE F32<L> weights_of(F32<L> distance, float temperature) {
  const F32<L> exponent = -distance / temperature;
  return exponent < LOWEST_EXPONENT ? F32<L>{} : exponential<L>(exponent);
}

template <int L, typename T>
RAC_INLINE float block_maximum(const typename T::Storage* logits) {
  F32<L> most[PARTS / L];
  for (auto& lanes : most) lanes = F32<L>{} - std::numeric_limits<float>::infinity();
  for (int i = 0; i < BLOCK; i += PARTS) {
    for (int k = 0; k < PARTS / L; ++k) {
      const F32<L> value = T::template load<L>(logits + i + k * L);
      most[k] = value > most[k] ? value : most[k];  // NaN is passed over: its weight tells
    }
  }
  for (int k = 1; k < PARTS / L; ++k) most[0] = most[k] > most[0] ? most[k] : most[0];
  float lanes[L];
  std::memcpy(lanes, most, sizeof(lanes));
  return *std::max_element(lanes, lanes + L);
}

template <int L, typename T>
RAC_INLINE double block_sum(const typename T::Storage* logits, float maximum, float temperature) {
  F32<L> sums[PARTS / L] = {};
  for (int i = 0; i < BLOCK; i += PARTS) {
    for (int k = 0; k < PARTS / L; ++k) {
      const F32<L> value = T::template load<L>(logits + i + k * L);
      sums[k] += weights_of<L>(maximum - value, temperature);
    }
  }
  float parts[PARTS];
  std::memcpy(parts, sums, sizeof(parts));
  for (int width = PARTS / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) parts[j] += parts[j + width];
  }
  return parts[0];
}

// A row as whole blocks: what is left over after the last one is widened, and filled up with -Inf.
template <int L, typename T>
struct Row {
  using Storage = typename T::Storage;
  RAC_INLINE Row fill(const Storage* logits, int64_t vocabulary) {
    Row row;
    row.logits = logits;
    row.whole = vocabulary / BLOCK;
    row.blocks = (vocabulary + BLOCK - 1) / BLOCK;
    std::fill(row.rest, row.rest + BLOCK, -std::numeric_limits<float>::infinity());
    for (int64_t i = row.whole * BLOCK; i < vocabulary; ++i) {
      row.rest[i - row.whole * BLOCK] = load_first<L, T>(logits + i, 1)[0];
    }
    return row;
  }
  const Storage* logits;
  int64_t whole, blocks;
  float rest[BLOCK];
};

// distance[i] = maximum - logit of the ids of a block.
template <int L, typename T>
RAC_INLINE void block_distance(const Row<L, T>& row, int64_t block, float maximum,
                               float* distance) {
  for (int i = 0; i < BLOCK; i += L) {
    const F32<L> value = block < row.whole
                             ? T::template load<L>(row.logits + block * BLOCK + i)
                             : Float::load<L>(row.rest + i);
    Float::store<L>(distance + i, maximum - value);
  }
}

template <int L>
RAC_INLINE void weigh(const float* distance, int64_t size, float temperature, float* weight) {
  for (int64_t i = 0; i < size; i += L) {
    Float::store<L>(weight + i, weights_of<L>(Float::load<L>(distance + i), temperature));
  }
}

// Copy the ids that are at most `furthest` from the maximum.
template <int L, typename T>
RAC_INLINE void collect(const Row<L, T>& row, float maximum, float furthest, float temperature,
                        const float* maxima, Candidates& found) {
  float distance[BLOCK];
  int64_t size = 0;
  for (int64_t block = 0; block < row.blocks; ++block) {
    if (!(maximum - maxima[block] <= furthest)) continue;
    block_distance<L, T>(row, block, maximum, distance);
    for (int i = 0; i < BLOCK; ++i) {
      found.distance[size] = distance[i];
      found.id[size] = static_cast<int32_t>(block * BLOCK + i);
      size += distance[i] <= furthest;
    }
  }
  found.size = size;
  std::fill(&found.distance[size], &found.distance[size] + L, 0.0f);
  weigh<L>(found.distance.get(), size, temperature, found.weight.get());
  found.mass = 0;
  for (int64_t i = 0; i < size; ++i) found.mass += found.weight[i];
}

// draw_candidate for the whole vocabulary: finds the block by its sum, then the id in it.
template <int L, typename T>
RAC_INLINE int64_t draw_any(const Row<L, T>& row, const double* sums, float maximum,
                            float temperature, double target) {
  double passed = 0;
  int64_t block = 0;
  for (int64_t next = 0; next < row.blocks; ++next) {
    if (sums[next] <= 0) continue;
    block = next;
    if (passed + sums[next] > target) break;
    passed += sums[next];
  }
  float distance[BLOCK], weight[BLOCK];
  block_distance<L, T>(row, block, maximum, distance);
  weigh<L>(distance, BLOCK, temperature, weight);
  int64_t id = -1;
  for (int i = 0; i < BLOCK && !(passed > target); ++i) {
    if (weight[i] <= 0) continue;
    id = block * BLOCK + i;
    passed += weight[i];
  }
  return id;
}

template <int L, typename T>
RAC_INLINE int64_t draw(const NucleusJob& job, int64_t b, Scratch& scratch) {
  const auto row = Row<L, T>::fill(
      static_cast<const typename T::Storage*>(job.logits) + b * job.stride, job.vocabulary);
  float maximum = -std::numeric_limits<float>::infinity();
  for (int64_t block = 0; block < row.blocks; ++block) {
    scratch.maxima[block] = block < row.whole
                                ? block_maximum<L, T>(row.logits + block * BLOCK)
                                : block_maximum<L, Float>(row.rest);
    maximum = std::max(maximum, scratch.maxima[block]);
  }
  double total = 0;
  for (int64_t block = 0; block < row.blocks; ++block) {
    scratch.sums[block] =
        block < row.whole ? block_sum<L, T>(row.logits + block * BLOCK, maximum, job.temperature)
                          : block_sum<L, Float>(row.rest, maximum, job.temperature);
    total += scratch.sums[block];
  }
  if (!(total > 0)) return -1;  // NaN: a logit is NaN or +Inf, or all are -Inf
  const float uniform = job.uniform[b];
  if (job.top_p >= 1) {
    const double target = uniform * total;
    return draw_any<L, T>(row, scratch.sums.get(), maximum, job.temperature, target);
  }
  const double target = job.top_p * total;
  for (const double least : {1.0 / FEW, (1 - job.top_p) / job.vocabulary}) {
    // 1e-3 more than rounding needs; what has no weight never belongs
    const double exponent = std::max<double>(std::log(least * total) - 1e-3, LOWEST_EXPONENT);
    const double furthest = std::min<double>(std::max(-exponent, 0.0) * job.temperature,
                                             std::numeric_limits<float>::max());
    collect<L, T>(row, maximum, static_cast<float>(furthest), job.temperature,
                  scratch.maxima.get(), scratch.candidates);
    if (scratch.candidates.mass >= target) break;
  }
  const Last last = last_of_nucleus(scratch.candidates, target, scratch.left.get());
  return draw_candidate(scratch.candidates, last, uniform);
}

// The largest of a block, and whether there is NaN.
template <int L, typename T>
RAC_INLINE float block_largest(const typename T::Storage* logits, bool* nan) {
  F32<L> most = F32<L>{} - std::numeric_limits<float>::infinity();
  auto unordered = most != most;
  for (int i = 0; i < BLOCK; i += L) {
    const F32<L> value = T::template load<L>(logits + i);
    most = value > most ? value : most;
    unordered |= value != value;
  }
  float largest = -std::numeric_limits<float>::infinity();
  for (int k = 0; k < L; ++k) {
    largest = std::max(largest, most[k]);
    *nan |= unordered[k] != 0;
  }
  return largest;
}

// The first of the largest logits.
template <int L, typename T>
RAC_INLINE int64_t most_likely(const NucleusJob& job, int64_t b) {
  const auto row = Row<L, T>::fill(
      static_cast<const typename T::Storage*>(job.logits) + b * job.stride, job.vocabulary);
  float maximum = -std::numeric_limits<float>::infinity();
  int64_t first = 0;
  bool nan = false;
  for (int64_t block = 0; block < row.blocks; ++block) {
    const float largest = block < row.whole
                              ? block_largest<L, T>(row.logits + block * BLOCK, &nan)
                              : block_largest<L, Float>(row.rest, &nan);
    if (largest > maximum) {
      maximum = largest;
      first = block;
    }
  }
  if (nan || !std::isfinite(maximum)) return -1;
  float distance[BLOCK];
  block_distance<L, T>(row, first, maximum, distance);
  return first * BLOCK + (std::find(distance, distance + BLOCK, 0.0f) - distance);
}

template <int L>
RAC_INLINE void draw_rows(const NucleusJob& job) {
  if (job.temperature == 0) {
#pragma omp for
    for (int64_t b = 0; b < job.batch; ++b) {
      job.ids[b] = job.dtype == 0 ? most_likely<L, Float>(job, b) : most_likely<L, BFloat16>(job, b);
    }
    return;
  }
  Scratch scratch(job.vocabulary);
#pragma omp for schedule(dynamic)
  for (int64_t b = 0; b < job.batch; ++b) {
    job.ids[b] = job.dtype == 0 ? draw<L, Float>(job, b, scratch)
                                : draw<L, BFloat16>(job, b, scratch);
  }
}

void draw_baseline(const NucleusJob& job) { draw_rows<4>(job); }
RAC_AVX2 void draw_avx2(const NucleusJob& job) { draw_rows<8>(job); }
RAC_AVX512 void draw_avx512(const NucleusJob& job) { draw_rows<16>(job); }

}  // namespace

void nucleus_sample(const NucleusJob& job) {
  const auto run = pick(draw_baseline, draw_avx2, draw_avx512);
#pragma omp parallel num_threads(job.threads)
  run(job);
}
