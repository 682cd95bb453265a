// One chunk of the columns that decode_attention.cpp attends over: scores, their softening, and the
// values that they weigh. p and scores are [queries][CHUNK], accumulators [queries][padded].
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "elements.h"
#include "exponential.h"
#include "rotary.h"

constexpr int64_t CHUNK = 64;
constexpr int PARTS = 16;
constexpr float LOWEST = -std::numeric_limits<float>::infinity();

// A tree: halves of PARTS on each other, then of what is left.
template <int L>
RAC_INLINE float sum_of_parts(const F32<L> (&sums)[PARTS / L]) {
  float parts[4];
  if constexpr (L == 4) {
    const F32<4> four = (sums[0] + sums[2]) + (sums[1] + sums[3]);
    std::memcpy(parts, &four, sizeof(parts));
  } else {
    F32<8> eight;
    if constexpr (L == 8) {
      eight = sums[0] + sums[1];
    } else {
      F32<8> halves[2];
      std::memcpy(halves, sums, sizeof(halves));
      eight = halves[0] + halves[1];
    }
    F32<4> halves[2];
    std::memcpy(halves, &eight, sizeof(halves));
    const F32<4> four = halves[0] + halves[1];
    std::memcpy(parts, &four, sizeof(parts));
  }
  return (parts[0] + parts[2]) + (parts[1] + parts[3]);
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
#pragma GCC unroll 4
  for (int v = 0; v < PARTS / L; ++v) {
    const F32<L> lanes = T::template load<L>(key + v * L);
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      F32<L> query;
      std::memcpy(&query, queries + q * padded + v * L, sizeof(query));
      sums[q][v] += query * lanes;
    }
  }
}

// scores[q * CHUNK] = (query q . key) * scaling for Q queries.
template <int L, typename T, int Q>
RAC_INLINE void score(const float* queries, int64_t padded, const Element<T>* key, int64_t width,
                      float scaling, float* scores) {
  F32<L> sums[Q][PARTS / L] = {};
  int64_t i = 0;
  for (; i + PARTS <= width; i += PARTS) {
    add_key<L, T, Q, true>(queries + i, padded, key + i, PARTS, sums);
  }
  if (i < width) add_key<L, T, Q, false>(queries + i, padded, key + i, width - i, sums);
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) scores[q * CHUNK] = sum_of_parts<L>(sums[q]) * scaling;
}

// sums[q] += p[q][column] * value, columns in their order: W vectors of features, or their first
// `count`.
template <int L, typename T, int Q, int W, bool WHOLE>
RAC_INLINE void weigh(const float* p, const Element<T>* values, int64_t stride, int64_t columns,
                      int64_t count, float* sums, int64_t padded) {
  F32<L> sum[Q][W];
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) std::memcpy(sum[q], sums + q * padded, sizeof(sum[q]));
  for (int64_t c = 0; c < columns; ++c, values += stride) {
    Element<T> part[W * L] = {};
    const Element<T>* from = values;
    if constexpr (!WHOLE) {
      std::memcpy(part, values, count * sizeof(part[0]));
      from = part;
    }
    F32<L> lanes[W];
#pragma GCC unroll 2
    for (int w = 0; w < W; ++w) lanes[w] = T::template load<L>(from + w * L);
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      const float weight = p[q * CHUNK + c];
#pragma GCC unroll 2
      for (int w = 0; w < W; ++w) sum[q][w] += lanes[w] * weight;
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) std::memcpy(sums + q * padded, sum[q], sizeof(sum[q]));
}

// The chunk's largest score and `largest`; NaN where a score is.
template <int L>
RAC_INLINE float largest_of(const float* p, float largest) {
  F32<L> most = F32<L>{} + largest;
  I32<L> nan = {};
  for (int64_t c = 0; c < CHUNK; c += L) {
    F32<L> lanes;
    std::memcpy(&lanes, p + c, sizeof(lanes));
    most = lanes > most ? lanes : most;
    nan |= lanes != lanes;
  }
  for (int lane = 0; lane < L; ++lane) {
    if (nan[lane] != 0) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, most[lane]);
  }
  return largest;
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
  sum += sum_of_parts<L>(sums);
  return true;
}
