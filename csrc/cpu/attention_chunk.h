// One chunk of the columns that decode_attention.cpp attends over: scores, their softening, and the
// values that they weigh. p and scores are [queries][CHUNK], accumulators [queries][padded].
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>

#include "elements.h"
#include "exponential.h"
#include "rotary.h"

constexpr int64_t CHUNK = 64;
constexpr int PARTS = 16;
constexpr float LOWEST = -std::numeric_limits<float>::infinity();

// The lanes of a vector in halves, HALF lanes of `a` and of `b` in turn: the lower halves of every 2
// HALF lanes, or the upper ones.
template <int L, int HALF, bool UPPER, int... R>
RAC_INLINE F32<L> halves_of(F32<L> a, F32<L> b, std::integer_sequence<int, R...>) {
  return __builtin_shuffle(a, b, (I32<L>){(R / HALF % 2 * L + R / (2 * HALF) * 2 * HALF + R % HALF +
                                           (UPPER ? HALF : 0))...});
}

// Lane c of the sum: the lanes of parts[c], their lower half on the upper, then halves of what is left.
template <int L, int HALF>
RAC_INLINE F32<L> sum_halves(F32<L>* parts) {
  if constexpr (HALF > 0) {
    constexpr auto ALL = std::make_integer_sequence<int, L>();
#pragma GCC unroll 8
    for (int c = 0; c < HALF; ++c) {
      parts[c] = halves_of<L, HALF, false>(parts[c], parts[c + HALF], ALL) +
                 halves_of<L, HALF, true>(parts[c], parts[c + HALF], ALL);
    }
    return sum_halves<L, HALF / 2>(parts);
  }
  return parts[0];
}

// PARTS as one vector, whose halves are summed then.
template <int L>
RAC_INLINE F32<L> sum_of_vectors(const F32<L> (&sums)[PARTS / L]) {
  if constexpr (L == 16) return sums[0];
  else if constexpr (L == 8) return sums[0] + sums[1];
  else return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

// The same for one vector: join(lower half, upper half), then of what is left.
template <int L, typename Join>
RAC_INLINE float fold(F32<L> lanes, const Join& join) {
  if constexpr (L == 4) {
    return join(join(lanes[0], lanes[2]), join(lanes[1], lanes[3]));
  } else {
    F32<L / 2> halves[2];
    std::memcpy(halves, &lanes, sizeof(halves));
    return fold<L / 2>(join(halves[0], halves[1]), join);
  }
}

// sums += PARTS features of Q queries times those of a key; `count` < PARTS of them at the end.
template <int L, typename T, int Q, bool WHOLE>
RAC_INLINE void add_key(const float* queries, int64_t padded, const Element<T>* key, int64_t count,
                        F32<L> (&sums)[Q][PARTS / L]) {
  Element<T> part[PARTS] = {};
  if constexpr (!WHOLE) {
    std::memcpy(part, key, count * sizeof(part[0]));
    key = part;
  }
#pragma GCC unroll 8
  for (int v = 0; v < PARTS / L; ++v) {
    const F32<L> lanes = T::template load<L>(key + v * L);
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
      F32<L> query;
      std::memcpy(&query, queries + q * padded + v * L, sizeof(query));
      sums[q][v] += query * lanes;
    }
  }
}

// parts[q * L] = query q . key for Q queries, still to be summed.
template <int L, typename T, int Q>
RAC_INLINE void score(const float* queries, int64_t padded, const Element<T>* key, int64_t width,
                      F32<L>* parts) {
  F32<L> sums[Q][PARTS / L] = {};
  int64_t i = 0;
  for (; i + PARTS <= width; i += PARTS) {
    add_key<L, T, Q, true>(queries + i, padded, key + i, PARTS, sums);
  }
  if (i < width) add_key<L, T, Q, false>(queries + i, padded, key + i, width - i, sums);
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q) parts[q * L] = sum_of_vectors<L>(sums[q]);
}

// sums[q] += p[q][column] * value, columns in their order: W vectors of features, or their first
// `count`.
template <int L, typename T, int Q, int W, bool WHOLE>
RAC_INLINE void weigh(const float* p, const Element<T>* values, int64_t stride, int64_t columns,
                      int64_t count, float* sums, int64_t padded) {
  F32<L> sum[Q][W];
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q) std::memcpy(sum[q], sums + q * padded, sizeof(sum[q]));
  for (int64_t c = 0; c < columns; ++c, values += stride) {
    Element<T> part[W * L] = {};
    const Element<T>* from = values;
    if constexpr (!WHOLE) {
      std::memcpy(part, values, count * sizeof(part[0]));
      from = part;
    }
    F32<L> lanes[W];
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) lanes[w] = T::template load<L>(from + w * L);
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
      const float weight = p[q * CHUNK + c];
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) sum[q][w] += lanes[w] * weight;
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q) std::memcpy(sums + q * padded, sum[q], sizeof(sum[q]));
}

// The chunk's largest score and `largest`; NaN where a score is.
template <int L>
RAC_INLINE float largest_of(const float* p, float largest) {
  const auto join = [](const auto& a, const auto& b) __attribute__((always_inline)) {
    return (b > a) | (b != b) ? b : a;
  };
  F32<L> most = F32<L>{} + largest;
  for (int64_t c = 0; c < CHUNK; c += L) most = join(most, Float::load<L>(p + c));
  return fold<L>(most, join);
}

// p = e^(score - largest) of one query's chunk, its sum added; the accumulator rescaled for a larger
// `largest`. False where nothing in the chunk is attended over.
template <int L>
RAC_INLINE bool soften(float* p, int64_t columns, float* values, int64_t padded, float& largest,
                       float& sum) {
  std::fill(p + columns, p + CHUNK, LOWEST);
  const float most = largest_of<L>(p, largest);
  if (most == LOWEST) {
    std::fill(p, p + CHUNK, 0.0f);
    return false;
  }
  if (most != largest) {
    const float factor = largest == LOWEST ? 0 : exponential<4>(F32<4>{} + (largest - most))[0];
    sum *= factor;
    for (int64_t i = 0; i < padded; ++i) values[i] *= factor;
    largest = most;
  }
  F32<L> sums[PARTS / L] = {};
  for (int64_t c = 0; c < CHUNK; c += L) {
    F32<L> lanes;
    std::memcpy(&lanes, p + c, sizeof(lanes));
    const F32<L> softened = exponential<L>(lanes - most);
    lanes = lanes == LOWEST ? F32<L>{} : softened;
    std::memcpy(p + c, &lanes, sizeof(lanes));
    sums[c / L % (PARTS / L)] += lanes;
  }
  sum += fold<L>(sum_of_vectors<L>(sums), std::plus<>());
  return true;
}
